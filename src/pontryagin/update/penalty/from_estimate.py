"""rho = 2 C, with the constant of Lemma 2 measured as the run goes."""

from dataclasses import dataclass, field

from pontryagin.problem import ProblemError
from pontryagin.update.penalty.rule import OneRho, Trial, check_rho, held

FIRST = 0.01
"""The least that the first rho is multiplied by once an estimate is known: a guess may be far off."""
_GROW = (1.5, 10.0)
"""Least and most that rho is multiplied by after a rejection, as AcceptReject has them."""


@dataclass
class FromEstimate(OneRho):
    """rho = 2 C, C the running maximum of its estimates: Theorem 4 of [LCTE] made operational.

    Every trial measures C_k = rho (J_new - J_old + mu) / mu. For an exact argmax mu is rho times the
    feasibility errors, and this is the constant of Lemma 2 seen in this iteration; along any other step
    (momentum, damping) it is the constant for which rho = 2 C_k is the step of least J to second order.

    rho: of the first trial alone, > 0: it is no estimate, and forgotten once there is one.
    rho_decay: in (0, 1], what an old maximum fades by in an iteration, so that C can follow the run; 1 keeps
        it for ever, which is safest and slowest.
    sufficient: in [0, 1/2), the share of mu that J must fall by; at rho = 2C a half is what to expect.
    costate_weight: rho_costate is rho * costate_weight * min(1, 1 / mean |p|^2); errors of costates are
        weighed alike in C.
    attempts: trials in an iteration; 30 rejections multiply rho by 1.5^30 = 2e5 at least.

    Guarantee, on a full batch: J never rises, and every accepted iteration lowers it by at least sufficient *
    mu, because a trial that fails this test is maximized again with the C that it has shown. As long as no
    C_k exceeds the remembered one, every first trial is accepted and lowers J by at least mu / 2; C_k up to
    twice the remembered one still lower it. Raises ProblemError for settings out of these ranges.
    """

    rho: float = 5.0
    rho_decay: float = 0.8
    sufficient: float = 1e-3
    costate_weight: float = 1.0
    attempts: int = 30
    per_stage: bool = field(default=False, init=False)
    _known: bool = field(default=False, init=False, repr=False)
    _excess: float = field(default=1.0, init=False, repr=False)

    def __post_init__(self) -> None:
        check_estimate(self, self.rho, self.rho_decay, self.sufficient, self.costate_weight)

    def accepts(self, trial: Trial) -> bool:
        """The test of sufficient decrease; rho from the larger of the remembered and the new estimate."""
        accepted = trial.falls_enough(self.sufficient)
        factor = rho_factor(trial, accepted, self.rho_decay if self._known else FIRST, self._excess)
        self.rho = held(factor * self.rho)
        self._known |= accepted
        self._excess = 1.0 if accepted and trial.tells else self._excess * factor
        return accepted


def rho_factor(trial: Trial, accepted: bool, rho_decay: float, excess: float) -> float:
    """What rho = 2 C is multiplied by after a trial. excess: what it has been multiplied by since C was
    measured.

    Accepted: max(rho_decay, 2 C_k / rho); where nothing could be measured, back towards the last 2 C by
    rho_decay an iteration. Rejected: 2 C_k / rho within limits, the upper one where nothing could be
    measured, and the inverse of that where the trial's promise was lost in the rounding of J.
    """
    if not accepted:
        return 1 / _GROW[1] if trial.in_rounding else min(max(trial.factor, _GROW[0]), _GROW[1])
    return max(rho_decay, trial.factor if trial.tells else min(1.0, 1 / excess))


def check_estimate(rule: object, rho: float, rho_decay: float, sufficient: float,
                   costate_weight: float) -> None:
    """ProblemError, naming the rule, for settings that make no sense."""
    check_rho(rule, rho, costate_weight)
    name = type(rule).__name__
    if not 0 < rho_decay <= 1:
        raise ProblemError(f"{name} rho_decay: expected a number in (0, 1], found {rho_decay}")
    if not 0 <= sufficient < 0.5:
        raise ProblemError(f"{name} sufficient: expected a number in [0, 1/2), found {sufficient}: at rho = "
                           "2C half of the predicted decrease is what to expect")
