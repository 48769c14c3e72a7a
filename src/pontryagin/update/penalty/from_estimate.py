"""rho = 2 C, with the constant of Lemma 2 measured as the run goes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from sys import float_info

from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import HamiltonianModel
from pontryagin.problem import ProblemError
from pontryagin.update.penalty.accept_reject import falls_enough
from pontryagin.update.penalty.costate_scale import costate_ratio
from pontryagin.update.penalty.rule import Trial

_ROUNDING = 1e3 * float_info.epsilon
"""Of J: a remainder below so much of it says nothing."""
FIRST = 0.01
"""The least that the first rho is multiplied by once an estimate is known."""
_GROW = (1.5, 10.0)
"""Least and most that rho is multiplied by after a rejection."""


@dataclass
class FromEstimate:
    """rho = 2 C, C the running maximum of its estimates: Theorem 4 of [LCTE] made operational.

    Every trial measures C_k = rho (J_new - J_old + mu) / mu. For an exact argmax mu is rho times the
    feasibility errors, and this is the constant of Lemma 2 seen in this iteration; along any other step
    (momentum, damping) it is the constant for which rho = 2 C_k is the step of least J to second order. An
    old maximum is forgotten by the factor `rho_decay` an iteration; rho_decay = 1 keeps it for ever, which is
    safest and slowest. `rho` is that of the first trial alone: it is no estimate, and forgotten once there is
    one.

    The costate penalty is rho * costate_weight * min(1, 1 / mean |p|^2); errors of costates are weighed alike
    in C.

    Guarantee, on a full batch: J never rises, and every accepted iteration lowers it by at least sufficient *
    mu, because a trial that fails this test is maximized again with the C that it has shown. As long as no
    C_k exceeds the remembered one, every first trial is accepted and lowers J by at least mu / 2; C_k up to
    twice the remembered one still lower it.
    """

    rho: float = 5.0
    rho_decay: float = 0.8
    sufficient: float = 1e-3
    costate_weight: float = 1.0
    attempts: int = 30
    per_stage: bool = field(default=False, init=False)
    _known: bool = field(default=False, init=False, repr=False)
    _ratio: float = field(default=0.0, init=False, repr=False)
    _groups: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        check_estimate_settings(type(self).__name__, self.rho, self.rho_decay, self.sufficient,
                                self.costate_weight)

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        """The costates' scale sets the costate penalty."""
        self._ratio, self._groups = costate_ratio(models, self.costate_weight), len(models)

    def penalties(self) -> list[Penalties]:
        """rho and its share for the costates."""
        return [Penalties(self.rho, self.rho * self._ratio)] * self._groups

    def accepts(self, trial: Trial) -> bool:
        """The test of sufficient decrease; rho from the larger of the remembered and the new estimate."""
        accepted = falls_enough(trial, self.sufficient)
        self.rho *= rho_factor(trial, accepted, self.rho_decay if self._known else FIRST)
        self._known |= accepted
        return accepted


def rho_factor(trial: Trial, accepted: bool, rho_decay: float) -> float:
    """What rho = 2 C is multiplied by after a trial.

    Accepted: max(rho_decay, 2 C_k / rho). Rejected: 2 C_k / rho within limits, the upper one where nothing could
    be measured.
    """
    predicted = trial.predicted
    measured = 2 * trial.remainder / predicted if predicted > 0 and isfinite(trial.after) else float("inf")
    if not accepted:
        return min(max(measured, _GROW[0]), _GROW[1])
    tells = predicted > 0 and abs(trial.remainder) > _ROUNDING * abs(trial.before)
    return max(rho_decay, measured) if tells else 1.0


def check_estimate_settings(name: str, rho: float, rho_decay: float, sufficient: float,
                            costate_weight: float) -> None:
    """ProblemError for settings that make no sense."""
    Penalties(rho, costate_weight)  # refuses what is negative or not finite
    if rho == 0:
        raise ProblemError(f"{name} rho: expected a penalty > 0 to start from, found 0; use Fixed for basic "
                           "MSA")
    if not 0 < rho_decay <= 1:
        raise ProblemError(f"{name} rho_decay: expected a number in (0, 1], found {rho_decay}")
    if not 0 <= sufficient < 0.5:
        raise ProblemError(f"{name} sufficient: expected a number in [0, 1/2), found {sufficient}: at rho = "
                           "2C half of the predicted decrease is what to expect")
