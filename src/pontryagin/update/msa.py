"""The method of successive approximations, basic and extended."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer import ByForm, HamiltonianModel, Maximizer
from pontryagin.problem import ControlProblem, Controls, NonFiniteError, ProblemError
from pontryagin.trajectory import Propagation, Trajectory, group_stages
from pontryagin.update.acceleration import Acceleration, Momentum, Plain
from pontryagin.update.penalty import AcceptReject, Fixed, PenaltyRule, Trial
from pontryagin.update.perturbation import Perturbation
from pontryagin.update.record import IterationRecord, StageRecord


class ExtendedMSA:
    """Extended MSA ([LCTE] Algorithm 2; with mini-batches, Algorithm 3).

    An iteration propagates states and costates at the current controls, maximizes the augmented Hamiltonian of
    every stage independently, and propagates the new controls; the penalty rule accepts them, or asks for
    another argmax at the same states and costates.

    maximizer: by default the closed form for affine stages and L-BFGS for others.
    penalty: by default AcceptReject, with which J never rises on a full batch.
    acceleration: by default Momentum; Plain() is the paper's iteration, Secant() is for full batches.
    perturbation: where an iterative argmax starts, by default at the controls themselves.

    controls (the problem's initial ones by default) are replaced, never changed in place.
    """

    def __init__(
        self,
        problem: ControlProblem,
        controls: Sequence[Tensor] | None = None,
        *,
        maximizer: Maximizer | None = None,
        penalty: PenaltyRule | None = None,
        acceleration: Acceleration | None = None,
        perturbation: Perturbation | None = None,
    ) -> None:
        self.problem = problem
        self.controls = problem.check_controls(problem.initial_controls() if controls is None else controls)
        self.maximizer = maximizer or ByForm()
        self.penalty = deepcopy(penalty) if penalty is not None else AcceptReject()
        self.acceleration = deepcopy(acceleration) if acceleration is not None else Momentum()
        self.perturbation = deepcopy(perturbation)
        self.iteration = 0
        self._ready: Propagation | None = None

    def step(self, batch: tuple[Tensor, Tensor] | None = None) -> IterationRecord:
        """One iteration, on the whole problem or on a batch (initial states, targets).

        Raises NonFiniteError when states, costates or the objective are not finite, ProblemError when a maximizer cannot
        take a stage; controls and iteration count are then as before.
        """
        if batch is not None and self.acceleration.full_batch:
            raise ProblemError(f"{type(self.acceleration).__name__} compares gradients of successive iterations and needs "
                               "the full batch; use Momentum() or Plain() with mini-batches")
        began = _clock(self.problem.initial_state)
        problem = self.problem if batch is None else self.problem.on(*batch)
        ready, self._ready = self._ready, None
        reused = ready is not None and batch is None and ready.controls is self.controls
        before = ready if ready is not None and reused else Propagation(problem, self.controls)
        trajectory = before.trajectory()
        starts = self.perturbation(problem, self.controls) if self.perturbation else None
        groups = group_stages(problem, self.controls, trajectory, starts)
        if self.penalty.per_stage:
            groups = [single for group in groups for single in group.singles()]
        models = [self.maximizer.model(group) for group in groups]
        trial = self._search(problem, before, trajectory, models)
        self.iteration += 1
        after = before
        if trial.accepted:
            after, self.controls = trial.propagation, trial.propagation.controls
            self._ready = after if batch is None else None
        return IterationRecord(
            iteration=self.iteration,
            objective_before=before.objective,
            objective_after=after.objective,
            loss_after=after.loss,
            trial_objective=trial.propagation.objective,
            stages=_stage_records(problem, models, trial),
            accepted=trial.accepted,
            rejected=trial.rejected,
            evaluations=(not reused) + trial.rejected + trial.accepted + _inner_evaluations(models),
            seconds=_clock(self.problem.initial_state) - began,
        )

    def iterate(self, iterations: int) -> Iterator[IterationRecord]:
        """`iterations` full-batch iterations, each as it is done."""
        for _ in range(iterations):
            yield self.step()

    def solve(self, iterations: int = 100, tolerance: float = 0.0, patience: int = 1) -> list[IterationRecord]:
        """Iterate until mu_k has been at most `tolerance` in `patience` successive iterations, no trial is accepted, or the
        iterations are used up.

        mu_k is the decrease of J that is still promised, in the units of J; it is 0 only where the extended maximum principle
        holds. A large rho makes it small too: patience > 1 lets a rule that lowers rho show that there is no more to gain.
        """
        if patience < 1:
            raise ProblemError(f"patience: expected a number of iterations >= 1, found {patience}")
        records, quiet = [], 0
        for record in self.iterate(iterations):
            records.append(record)
            quiet = quiet + 1 if record.optimality_gap <= tolerance else 0
            if quiet >= patience or not record.accepted:
                break
        return records

    def _search(self, problem: ControlProblem, before: Propagation, trajectory: Trajectory,
                models: list[HamiltonianModel]) -> "_Tried":
        self.penalty.begin(models)
        for rejected in range(self.penalty.attempts):
            penalties = self.penalty.penalties()
            parts = self.acceleration.propose(models, penalties)
            measures = [model.measure(part) for model, part in zip(models, parts, strict=True)]
            after = Propagation(problem, _scatter(self.controls, models, parts))
            if self.penalty.accepts(Trial(measures, penalties, before.objective, after.objective)):
                if not _finite(after):
                    raise NonFiniteError(
                        f"iteration {self.iteration + 1}: J becomes {after.objective} (it was {before.objective}); the "
                        "controls have been left unchanged; use a larger rho, or a penalty rule that rejects (AcceptReject)")
                self.acceleration.accept(models, penalties, parts)
                return _Tried(after, measures, penalties, True, rejected)
        return _Tried(after, measures, penalties, False, self.penalty.attempts)


class MSA(ExtendedMSA):
    """Basic MSA ([LCTE] Algorithm 1): extended MSA with both penalties zero and every argmax taken. May diverge.

    Without a penalty the argmax of an affine or linear-in-control Hamiltonian exists only with a quadratic running
    cost or within the iterations of LBFGS.
    """

    def __init__(self, problem: ControlProblem, controls: Sequence[Tensor] | None = None, *,
                 maximizer: Maximizer | None = None, perturbation: Perturbation | None = None) -> None:
        super().__init__(problem, controls, maximizer=maximizer, penalty=Fixed(Penalties(0.0, 0.0)),
                         acceleration=Plain(), perturbation=perturbation)


@dataclass(frozen=True)
class _Tried:
    propagation: Propagation
    measures: list[Measures]
    penalties: list[Penalties]
    accepted: bool
    rejected: int


def _scatter(controls: Controls, models: list[HamiltonianModel], parts: list[Tensor]) -> Controls:
    result = list(controls)
    for model, part in zip(models, parts, strict=True):
        for index, control in zip(model.group.indices, part.unbind(), strict=True):
            result[index] = control
    return tuple(result)


def _stage_records(problem: ControlProblem, models: list[HamiltonianModel], trial: _Tried) -> tuple[StageRecord, ...]:
    records = []
    for model, measure, own in zip(models, trial.measures, trial.penalties, strict=True):
        columns = zip(model.group.indices, measure.gain.tolist(), measure.state_error.tolist(),
                      measure.costate_error.tolist(), strict=True)
        records += [StageRecord(n, problem.stages[n].name, gain, state, costate, own) for n, gain, state, costate in columns]
    return tuple(sorted(records, key=lambda record: record.stage))


def _inner_evaluations(models: list[HamiltonianModel]) -> int:
    """Stages can be evaluated side by side, so the most evaluated group counts."""
    return max(model.evaluations for model in models)


def _finite(propagation: Propagation) -> bool:
    return bool(torch.tensor(propagation.objective).isfinite())


def _clock(device_of: Tensor) -> float:
    if device_of.is_cuda:
        torch.cuda.synchronize(device_of.device)
    return perf_counter()
