"""Penalties that grow until a trial is accepted."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pontryagin.maximizer import HamiltonianModel
from pontryagin.problem import ProblemError
from pontryagin.update.penalty.rule import OneRho, Trial, check_rho, held


@dataclass
class AcceptReject(OneRho):
    """Accept a trial when J_new <= J_old - sufficient * mu; otherwise maximize again with a larger rho.

    Its factors come from the trial itself: along the step, J(t) = J - mu t + c mu t^2 with c = (J_new - J +
    mu) / mu, which is least at t = 1/(2c). So rho is multiplied by 2c, kept within `grow` after a rejection
    and within `shrink` after an acceptance. For an exact argmax rho E = mu (E the feasibility errors), and
    then 2c rho = 2 C_k: the penalty of Theorem 4 with the constant measured in this iteration.

    rho: of the first trial, > 0, in units of J / |change of a state|^2; 5 is soon another number by itself.
    sufficient: in [0, 1); small, so that nearly every fall of J is enough.
    grow: least and most that a rejection multiplies rho by, enough that few of them suffice; shrink: an
        acceptance, which at most halves rho and never raises it.
    costate_weight: rho_costate is rho * costate_weight * min(1, 1 / mean |p|^2): as strong as the state
        penalty when costates are small, weaker while they are large. 0: none.
    restart: begin every iteration at the first rho, as a line search does.
    attempts: trials in an iteration; 30 rejections multiply rho by 1.5^30 = 2e5 at least.

    Guarantee, on a full batch: J never rises, and every accepted iteration lowers it by at least sufficient *
    mu. How many trials that takes is not bounded beforehand; after `attempts`, or where longer steps have
    been rejected and what a shorter one promises is lost in the rounding of J, the iteration changes nothing,
    rho included. Raises ProblemError for settings out of these ranges.
    Source: the sequential quadratic Hamiltonian method, Hofmann and Borzi 2022; [LCTE] Theorem 4 for what rho
    must exceed.
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

    def __post_init__(self) -> None:
        check_rho(self, self.rho, self.costate_weight)
        if not 0 <= self.sufficient < 1:
            raise ProblemError(f"sufficient: expected a number in [0, 1), found {self.sufficient}")
        if not (1 < self.grow[0] <= self.grow[1] and 0 < self.shrink[0] <= self.shrink[1]):
            raise ProblemError("expected 1 < grow[0] <= grow[1] and 0 < shrink[0] <= shrink[1], found "
                               f"grow={self.grow}, shrink={self.shrink}")
        self._first = self.rho

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        super().begin(models)
        if self.restart:
            self.rho = self._first

    def accepts(self, trial: Trial) -> bool:
        """The test of sufficient decrease; multiplies rho either way. A rejected trial whose promise is lost
        in J's rounding asks for a smaller rho, not a larger one."""
        accepted = trial.falls_enough(self.sufficient)
        low, high = self.shrink if accepted else self.grow
        # over a discrete set no control may be worth its penalty yet: then nothing is predicted
        factor = low if accepted and trial.predicted == 0 else trial.factor
        lost = not accepted and trial.in_rounding
        self.rho = held(self.rho * (1 / high if lost else min(max(factor, low), high)))
        return accepted
