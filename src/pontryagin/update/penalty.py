"""Rules for the penalties rho: fixed, or accepted and rejected."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Protocol, runtime_checkable

from pontryagin.hamiltonian import Penalties
from pontryagin.problem import ProblemError


@runtime_checkable
class PenaltyRule(Protocol):
    """Chooses the penalties of a trial, judges the trial, and learns from it. A solver works on its own copy."""

    attempts: int
    """Trials in an iteration before it is given up."""

    def begin(self, costate_square: float) -> None:
        """A new iteration starts; costate_square is the mean over stages and samples of |p_{n+1}|^2."""

    def penalties(self) -> Penalties:
        """The penalties of the next trial."""

    def accepts(self, predicted: float, achieved: float) -> bool:
        """Whether a trial with predicted decrease mu and achieved decrease J_old - J_new is taken."""


@dataclass
class Fixed:
    """The same penalties always, every trial taken: [LCTE] Algorithms 1 (both zero) and 2."""

    fixed: Penalties
    attempts: int = field(default=1, init=False)

    def begin(self, costate_square: float) -> None:
        """Nothing changes."""

    def penalties(self) -> Penalties:
        """The fixed ones."""
        return self.fixed

    def accepts(self, predicted: float, achieved: float) -> bool:
        """Always."""
        return True


@dataclass
class AcceptReject:
    """Accept a trial when J_new <= J_old - sufficient * mu; otherwise maximize again with a larger rho.

    Source: the sequential quadratic Hamiltonian method, Hofmann and Borzi 2022; [LCTE] Theorem 4 for what rho must
    exceed. Its factors come from the trial itself: along the step, J(t) = J - mu t + c mu t^2 with
    c = (J_new - J + mu) / mu, which is least at t = 1/(2c). So rho is multiplied by 2c, kept within `grow` after a
    rejection and within `shrink` after an acceptance. For an exact argmax rho E = mu (E the feasibility errors), and
    then 2c rho = 2 C_k: the penalty of Theorem 4 with the constant measured in this iteration.

    The costate penalty is rho * min(1, 1 / mean |p|^2) times `costate_weight`: as strong as the state penalty when
    costates are small, weaker while they are large. J never rises, and every accepted iteration lowers it by at
    least sufficient * mu. restart: begin every iteration at the first rho, as a line search does.
    """

    rho: float = 5.0
    sufficient: float = 1e-3
    grow: tuple[float, float] = (1.5, 10.0)
    shrink: tuple[float, float] = (0.5, 1.0)
    costate_weight: float = 1.0
    restart: bool = False
    attempts: int = 30
    _first: float = field(init=False, repr=False)
    _ratio: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        Penalties(self.rho, self.costate_weight)  # refuses what is negative or not finite
        if self.rho == 0:
            raise ProblemError("rho: expected a penalty > 0 to start from, found 0; use Fixed for basic MSA")
        if not 0 <= self.sufficient < 1:
            raise ProblemError(f"sufficient: expected a number in [0, 1), found {self.sufficient}")
        if not (1 < self.grow[0] <= self.grow[1] and 0 < self.shrink[0] <= self.shrink[1]):
            raise ProblemError(f"expected 1 < grow[0] <= grow[1] and 0 < shrink[0] <= shrink[1], found grow={self.grow}, "
                               f"shrink={self.shrink}")
        self._first = self.rho

    def begin(self, costate_square: float) -> None:
        """The costates' scale sets the costate penalty."""
        self._ratio = self.costate_weight * min(1.0, 1.0 / costate_square if costate_square > 0 else 1.0)
        if self.restart:
            self.rho = self._first

    def penalties(self) -> Penalties:
        """rho and its share for the costates."""
        return Penalties(self.rho, self.rho * self._ratio)

    def accepts(self, predicted: float, achieved: float) -> bool:
        """The test of sufficient decrease; multiplies rho either way."""
        accepted = isfinite(achieved) and achieved >= self.sufficient * max(predicted, 0.0)
        factor = 2 * (predicted - achieved) / predicted if predicted > 0 and isfinite(achieved) else float("inf")
        low, high = self.shrink if accepted else self.grow
        self.rho *= min(max(factor, low), high)
        return accepted
