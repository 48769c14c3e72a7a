"""Penalties that grow until a trial is accepted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import HamiltonianModel
from pontryagin.problem import ProblemError
from pontryagin.update.penalty.costate_scale import costate_ratio
from pontryagin.update.penalty.rule import Trial


@dataclass
class AcceptReject:
    """Accept a trial when J_new <= J_old - sufficient * mu; otherwise maximize again with a larger rho.

    Source: the sequential quadratic Hamiltonian method, Hofmann and Borzi 2022; [LCTE] Theorem 4 for what rho
    must exceed. Its factors come from the trial itself: along the step, J(t) = J - mu t + c mu t^2 with c =
    (J_new - J + mu) / mu, which is least at t = 1/(2c). So rho is multiplied by 2c, kept within `grow` after
    a rejection and within `shrink` after an acceptance. For an exact argmax rho E = mu (E the feasibility
    errors), and then 2c rho = 2 C_k: the penalty of Theorem 4 with the constant measured in this iteration.

    The costate penalty is rho * min(1, 1 / mean |p|^2) times `costate_weight`: as strong as the state penalty
    when costates are small, weaker while they are large. restart: begin every iteration at the first rho, as
    a line search does.

    Guarantee, on a full batch: J never rises, and every accepted iteration lowers it by at least sufficient *
    mu. How many trials that takes is not bounded beforehand; after `attempts` the iteration changes nothing.
    """

    rho: float = 5.0
    sufficient: float = 1e-3
    grow: tuple[float, float] = (1.5, 10.0)
    shrink: tuple[float, float] = (0.5, 1.0)
    costate_weight: float = 1.0
    restart: bool = False
    attempts: int = 30
    per_stage: bool = field(default=False, init=False)
    _first: float = field(init=False, repr=False)
    _ratio: float = field(default=0.0, init=False, repr=False)
    _groups: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        Penalties(self.rho, self.costate_weight)  # refuses what is negative or not finite
        if self.rho == 0:
            raise ProblemError("rho: expected a penalty > 0 to start from, found 0; use Fixed for basic MSA")
        if not 0 <= self.sufficient < 1:
            raise ProblemError(f"sufficient: expected a number in [0, 1), found {self.sufficient}")
        if not (1 < self.grow[0] <= self.grow[1] and 0 < self.shrink[0] <= self.shrink[1]):
            raise ProblemError("expected 1 < grow[0] <= grow[1] and 0 < shrink[0] <= shrink[1], found "
                               f"grow={self.grow}, shrink={self.shrink}")
        self._first = self.rho

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        """The costates' scale sets the costate penalty."""
        self._ratio, self._groups = costate_ratio(models, self.costate_weight), len(models)
        if self.restart:
            self.rho = self._first

    def penalties(self) -> list[Penalties]:
        """rho and its share for the costates."""
        return [Penalties(self.rho, self.rho * self._ratio)] * self._groups

    def accepts(self, trial: Trial) -> bool:
        """The test of sufficient decrease; multiplies rho either way."""
        predicted, accepted = trial.predicted, falls_enough(trial, self.sufficient)
        factor = 2 * trial.remainder / predicted if predicted > 0 and isfinite(trial.after) else float("inf")
        low, high = self.shrink if accepted else self.grow
        if accepted and predicted == 0:  # over a discrete set no control may be worth its penalty yet
            factor = low
        self.rho *= min(max(factor, low), high)
        return accepted


def falls_enough(trial: Trial, sufficient: float) -> bool:
    """Whether J_new <= J_old - sufficient * mu, and J has not risen whatever mu says; never with numbers that
    are not finite."""
    return isfinite(trial.after) and trial.achieved >= sufficient * max(trial.predicted, 0.0)
