"""What every penalty rule is: penalties for the next trial, a judgment of the trial, and what is learned from
it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer import HamiltonianModel


@dataclass(frozen=True)
class Trial:
    """New controls of all stages: what they promised and what they did. All are means over samples.

    measures, penalties: of each group of stages. before, after: J at the old and the new controls.
    """

    measures: Sequence[Measures]
    penalties: Sequence[Penalties]
    before: float
    after: float

    @property
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
    def penalized_error(self) -> float:
        """sum_n of rho_state times the state error plus rho_costate times the costate error: mu of an exact
        quadratic argmax."""
        return sum(float(rho.rho_state * measure.state_error.sum() + rho.rho_costate * measure.costate_error.sum())
                   for measure, rho in zip(self.measures, self.penalties, strict=True))


@runtime_checkable
class PenaltyRule(Protocol):
    """Chooses the penalties of a trial, judges the trial, and learns from it. A solver works on its own
    copy."""

    @property
    def attempts(self) -> int:
        """Trials in an iteration before it is given up."""

    @property
    def per_stage(self) -> bool:
        """Whether every stage has penalties of its own: then each is a group by itself, and equal stages are
        not batched."""

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        """A new iteration starts, with these models of H~, a group each, at the current controls."""

    def penalties(self) -> list[Penalties]:
        """The penalties of the next trial, one a group."""

    def accepts(self, trial: Trial) -> bool:
        """Whether the trial is taken."""
