"""What every penalty rule is: penalties for the next trial, a judgment of the trial, and what is learned from
it; and what several of them share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite
from sys import float_info
from typing import Protocol, runtime_checkable

from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer import HamiltonianModel
from pontryagin.problem import ProblemError

_ROUNDING, _TELLS = 16, 100
"""Times the rounding of J: what its sums may be off by, and what makes a remainder known to a sixth."""
_LEAST, _MOST = 1e-150, 1e150
"""Of rho: a rule that only ever shrinks or raises it must not reach 0 or infinity."""


@dataclass(frozen=True)
class Trial:
    """New controls of all stages: what they promised and what they did. All are means over samples.

    measures, penalties: of each group of stages. before, after: J at the old and the new controls. epsilon:
    the relative rounding of J.
    """

    measures: Sequence[Measures]
    penalties: Sequence[Penalties]
    before: float
    after: float
    epsilon: float = float_info.epsilon

    @cached_property
    def predicted(self) -> float:
        """mu = sum_n Delta H_n, the decrease of J to first order."""
        return sum(float(measure.gain.sum()) for measure in self.measures)

    @property
    def achieved(self) -> float:
        """J_old - J_new."""
        return self.before - self.after

    @property
    def remainder(self) -> float:
        """mu - (J_old - J_new): what Lemma 2 bounds by C times the feasibility errors."""
        return self.predicted - self.achieved

    @property
    def in_rounding(self) -> bool:
        """Whether the predicted decrease is lost in the rounding of J: then J_new says nothing of it, and
        only a longer step could be told."""
        return 0 <= self.predicted <= _ROUNDING * self.epsilon * abs(self.before) and isfinite(self.after)

    @property
    def tells(self) -> bool:
        """Whether the remainder stands out of the rounding of J."""
        return self.predicted > 0 and abs(self.remainder) > _TELLS * self.epsilon * abs(self.before)

    @property
    def factor(self) -> float:
        """2 remainder / mu = 2 C_k / rho: rho times this would have made the step of least J, to second
        order; infinite where nothing was promised or J is not finite."""
        measured = self.predicted > 0 and isfinite(self.after)
        return 2 * self.remainder / self.predicted if measured else inf

    def falls_enough(self, sufficient: float) -> bool:
        """Whether J_new <= J_old - sufficient * mu, and J has not risen whatever mu says; both finite."""
        return isfinite(self.after) and self.achieved >= sufficient * max(self.predicted, 0.0)


@runtime_checkable
class PenaltyRule(Protocol):
    """Chooses the penalties of a trial, judges it, and learns from it. A solver works on its own copy."""

    @property
    def attempts(self) -> int:
        """Trials in an iteration before it is given up."""

    @property
    def per_stage(self) -> bool:
        """Whether every stage has penalties of its own: each is then a group by itself, and not batched."""

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        """A new iteration starts, with these models of H~, a group each, at the current controls."""

    def penalties(self) -> list[Penalties]:
        """The penalties of the next trial, one a group."""

    def accepts(self, trial: Trial) -> bool:
        """Whether the trial is taken."""


class OneRho:
    """A rule with one rho for all stages, and its share for the costates."""

    rho: float
    costate_weight: float
    _ratio: float = 0.0
    _groups: int = 0

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        self._ratio, self._groups = costate_ratio(models, self.costate_weight), len(models)

    def penalties(self) -> list[Penalties]:
        return [Penalties(self.rho, self.rho * self._ratio)] * self._groups


def held(rho: float) -> float:
    """rho within what a number can hold, whatever it has been multiplied by."""
    return min(max(rho, _LEAST), _MOST)


def costate_ratio(models: Sequence[HamiltonianModel], weight: float = 1.0) -> float:
    """rho_costate / rho_state = weight * min(1, 1 / mean |p_{n+1}|^2), the mean over stages and samples; of
    an affine stage only the part that its outputs see.

    As strong as the state penalty when costates are small, weaker while they are large (as at the start of a
    training, when it would forbid all change).
    """
    squares = [model.group.costate_squares for model in models]
    square = sum(float(each.sum()) for each in squares) / sum(len(each) for each in squares)
    return weight * min(1.0, 1.0 / square if square > 0 else 1.0)


def check_rho(rule: object, rho: float, costate_weight: float) -> None:
    """ProblemError, naming the rule, for numbers that it cannot start from."""
    Penalties(rho, costate_weight)  # refuses what is negative or not finite
    if rho == 0:
        raise ProblemError(f"{type(rule).__name__} rho: expected a penalty > 0 to start from, found 0; use "
                           "Fixed for basic MSA")
