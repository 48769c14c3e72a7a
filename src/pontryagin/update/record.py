"""What one iteration did: the only thing that diagnostics and experiments read."""

from collections.abc import Sequence
from dataclasses import dataclass

from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.problem import ControlProblem


@dataclass(frozen=True)
class StageRecord:
    """One stage in one iteration, at the last controls tried. Means over samples.

    gain: Delta H_n, predicted. state_error, costate_error: feasibility errors, squared. penalties: those of
    the last trial. upstream: whether an earlier stage has a control; where none has, the costate error has no
    part in Lemma 2, for it is multiplied by a change of the state that is 0.
    """

    stage: int
    name: str
    gain: float
    state_error: float
    costate_error: float
    penalties: Penalties
    upstream: bool = True


@dataclass(frozen=True)
class IterationRecord:
    """One iteration of MSA or extended MSA: an argmax at every stage, tried until accepted.

    objective_before, objective_after: J on the iteration's batch; equal when nothing was accepted.
    loss_after: J without running cost. trial_objective: J at the last controls tried.
    optimality_gap: mu_k, the predicted decrease sum_n Delta H_n of the last trial. It is small too where rho
    is large or momentum is damped; ExtendedMSA.optimality_gap is that of the plain argmax at a stated
    penalty.
    rejected: trials that raised J too much and were maximized again at other penalties.
    evaluations: passes through all stages, forward with or without backward; an inner evaluation of every
    stage's Hamiltonian counts as one. seconds: wall clock of the iteration.
    """

    iteration: int
    objective_before: float
    objective_after: float
    loss_after: float
    trial_objective: float
    stages: tuple[StageRecord, ...]
    accepted: bool
    rejected: int
    evaluations: int
    seconds: float

    @property
    def penalties(self) -> Penalties:
        """The largest of the stages; all have the same unless the penalty rule sets them per stage."""
        own = [stage.penalties for stage in self.stages]
        return Penalties(max(rho.rho_state for rho in own), max(rho.rho_costate for rho in own),
                         max(rho.rho_control for rho in own), any(rho.everywhere for rho in own))

    @property
    def optimality_gap(self) -> float:
        """mu_k = sum_n Delta H_n, the decrease of J that is predicted to first order."""
        return sum(stage.gain for stage in self.stages)

    @property
    def feasibility_error(self) -> float:
        """sum_n of both feasibility errors, of costates where a control lies upstream: what Lemma 2 weighs
        with C against the gain."""
        return sum(stage.state_error + stage.upstream * stage.costate_error for stage in self.stages)

    @property
    def estimate(self) -> float:
        """C_k = (J_trial - J_before + mu_k) / feasibility errors: the constant of Lemma 2 as seen in this
        iteration; nan when the controls did not move."""
        error = self.feasibility_error
        return (self.trial_objective - self.objective_before
                + self.optimality_gap) / error if error > 0 else float("nan")


def stage_records(problem: ControlProblem, stages: Sequence[int], measures: Measures,
                  penalties: Penalties) -> list[StageRecord]:
    """Of stages that were maximized together."""
    columns = zip(stages, *(column.tolist() for column in measures), strict=True)
    return [StageRecord(n, problem.stages[n].name, gain, state, costate, penalties, *problem.upstream([n]))
            for n, gain, state, costate in columns]
