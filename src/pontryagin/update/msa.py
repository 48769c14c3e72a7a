"""The method of successive approximations, basic and extended."""

from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from math import inf, nan
from time import perf_counter

import torch
from torch import Tensor

from pontryagin.distributed import SharedPropagation, StageModels, StageParallel, group_controls
from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer import LBFGS, ByForm, Maximizer
from pontryagin.problem import ControlProblem, Controls, NoMaximumError, NonFiniteError, ProblemError
from pontryagin.update.acceleration import Acceleration, Momentum, Plain, augmented_gain
from pontryagin.update.ending import REFERENCE, Iterations, ending
from pontryagin.update.penalty import AcceptReject, Fixed, PenaltyRule, Trial
from pontryagin.update.perturbation import Perturbation
from pontryagin.update.record import IterationRecord, stage_records


class ExtendedMSA:
    """Extended MSA ([LCTE] Algorithm 2; with mini-batches, Algorithm 3): until the maximum principle holds,

        theta_n <- argmax over Theta_n of H~_n(x_n, p_{n+1}, theta), for every stage n.

    An iteration propagates states and costates at the current controls, maximizes the augmented Hamiltonian
    of every stage independently, and propagates the new controls; the penalty rule accepts them, or asks for
    another argmax at the same states and costates.

    problem: what is solved. controls: one flat vector a stage; by default the problem's initial ones. They
        are replaced, never changed in place.
    maximizer: by default ByForm, the closed form for affine stages, Gauss-Newton for other small controls.
    penalty: by default AcceptReject, with which J never rises on a full batch.
    acceleration: by default Momentum; Plain() is the paper's iteration, Secant() is for full batches.
    perturbation: where an iterative argmax starts, by default at the controls themselves.
    parallel: the processes that share the work, by default this one alone; all of them make the same solver
        and pass the same batches, and get the same controls and records.

    Raises ProblemError for controls that do not fit, and where processes differ.
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
        parallel: StageParallel | None = None,
    ) -> None:
        self.problem = problem
        self.controls = problem.check_controls(problem.initial_controls() if controls is None else controls)
        self.maximizer = maximizer or ByForm()
        self.penalty = deepcopy(penalty) if penalty is not None else AcceptReject()
        self._given = acceleration if acceleration is not None else Momentum()
        self.acceleration = deepcopy(self._given)
        self.perturbation = deepcopy(perturbation)
        self.iteration = 0
        self.parallel = parallel or StageParallel()
        self.parallel.require_same(problem, self.controls,
                                   (self.maximizer, self.penalty, self.acceleration, perturbation))
        self._ready: SharedPropagation | None = None
        self._models: tuple[SharedPropagation, StageModels] | None = None

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles propagate anew: graphs cannot be copied."""
        return {**self.__dict__, "_ready": None, "_models": None}

    def step(self, batch: tuple[Tensor, Tensor] | None = None) -> IterationRecord:
        """One iteration, on the whole problem or on a batch (initial states, targets).

        Raises NonFiniteError when states, costates or the objective are not finite, ProblemError when a
        maximizer cannot take a stage; controls and iteration count are then as before.
        """
        if batch is not None and self.acceleration.full_batch:
            raise ProblemError(f"{type(self.acceleration).__name__} compares gradients of successive "
                               "iterations and needs the full batch; use Momentum() or Plain() with "
                               "mini-batches")
        began = _clock(self.problem.initial_state)
        problem = self.problem if batch is None else self.problem.on(*batch)
        before, reused = self._propagated(problem, batch is None)
        starts = self.perturbation(problem, self.controls) if self.perturbation else None
        models = self._models_at(before, starts)
        self._ready = self._models = None
        trial = self._search(problem, before, models)
        self.iteration += 1
        after = before
        if trial.accepted:
            after, self.controls = trial.propagation, trial.propagation.controls
        if batch is None:
            self._ready = after
        records = [record for model, measure, own in zip(models, trial.measures, trial.penalties, strict=True)
                   for record in stage_records(problem, model.group.indices, measure, own)]
        inner = max(model.evaluations for model in models)  # side by side, so the most evaluated group counts
        return IterationRecord(
            iteration=self.iteration, objective_before=before.objective, objective_after=after.objective,
            loss_after=after.loss, trial_objective=trial.propagation.objective,
            stages=tuple(sorted(records, key=lambda record: record.stage)), accepted=trial.accepted,
            rejected=trial.rejected, evaluations=(not reused) + trial.rejected + trial.accepted + inner,
            seconds=_clock(self.problem.initial_state) - began)

    def iterate(self, iterations: int) -> Iterator[IterationRecord]:
        """`iterations` full-batch iterations, each as it is done."""
        return (self.step() for _ in range(iterations))

    def optimality_gap(self, reference: Penalties = REFERENCE, maximizer: Maximizer | None = None) -> float:
        """mu = sum_n Delta H_n of the plain argmax at the present controls and stated penalties, on the whole
        problem: what J can still be promised to fall by, in the units of J.

        It is 0 only where the extended maximum principle holds at these penalties ([LCTE] section 4), and
        what momentum or a rule's own rho do to a step does not change it. A smaller penalty asks for more.
        Stages that are not affine are maximized iteratively, from the controls: their part is a lower bound.

        reference: the default, rho_state = 1, in units of J / |change of a state|^2.
        maximizer: by default ByForm(), whatever the solver's own is.
        inf where the Hamiltonian of a stage grows without end over its set. Raises as step does otherwise.
        """
        return self._gap(reference, maximizer)[0]

    def _gap(self, reference: Penalties, maximizer: Maximizer | None = None) -> tuple[float, str]:
        """The optimality gap and, where it is inf, why."""
        before, _ = self._propagated(self.problem, True)
        self._ready = before
        chosen = maximizer or ByForm()
        if chosen == self.maximizer and self.perturbation is None:
            models = self._models_at(before, None)
            self._models = before, models
        else:
            models = self.parallel.models(chosen, before)
        try:
            measures = models.measure(models.maximize([reference] * len(models)))
        except NoMaximumError as error:
            return inf, str(error)
        return sum(float(measure.gain.sum()) for measure in measures), ""

    def solve(self, iterations: int = 100, tolerance: float = 0.0, patience: int = 1,
              reference: Penalties = REFERENCE) -> Iterations:
        """Iterate until the optimality gap at `reference` has been at most `tolerance` in `patience`
        successive iterations, no trial is accepted, or the iterations are used up.

        The gap is looked at where the last step itself promised no more than the tolerance, and at the end.
        The records come as a list, with `converged`, `optimality_gap` and, in words, `ending.reason`.
        tolerance: in the units of J; with 0 only a gap of 0 ends the run.
        """
        if patience < 1:
            raise ProblemError(f"patience: expected a number of iterations >= 1, found {patience}")
        if tolerance > 0:
            self._gap(reference)  # what it cannot be asked of is refused before the work
        records: list[IterationRecord] = []
        quiet, gap, why = 0, nan, ""
        for record in self.iterate(iterations):
            records.append(record)
            last = not record.accepted or (tolerance > 0 and len(records) == iterations)
            gap, why = self._gap(reference) if last or record.optimality_gap <= tolerance else (nan, "")
            quiet = quiet + 1 if gap <= tolerance else 0
            if quiet >= patience or not record.accepted:
                break
        return Iterations(records, ending(records[-1] if records else None, gap, tolerance, reference, why))

    def _propagated(self, problem: ControlProblem, whole: bool) -> tuple[SharedPropagation, bool]:
        """States at the present controls, and whether they were there already."""
        if whole and self._ready is not None and self._ready.controls is self.controls:
            return self._ready, True
        return self.parallel.propagate(problem, self.controls), False

    def _models_at(self, before: SharedPropagation, starts: Controls | None) -> StageModels:
        if self._models is not None and self._models[0] is before:
            return self._models[1]
        return self.parallel.models(self.maximizer, before, starts, alone=self.penalty.per_stage)

    def _proposed(self, models: StageModels, penalties: Sequence[Penalties]
                  ) -> tuple[list[Tensor], list[Measures]]:
        """New controls of each group, and what they promise. Under a rule that takes every trial they keep
        what Theorem 4 of [LCTE] asks of the argmax, H~_new >= H~_old summed over stages, or are the argmax;
        one that asks J needs no more than a promise."""
        parts = self.acceleration.propose(models, penalties)
        measures = models.measure(parts)
        if self.penalty.attempts > 1 or isinstance(self.acceleration, Plain) or augmented_gain(
                models, penalties, parts, measures) > 0:
            return parts, measures
        parts = models.maximize(penalties)
        return parts, models.measure(parts)

    def _search(self, problem: ControlProblem, before: SharedPropagation, models: StageModels) -> "_Tried":
        rule, told = copy(self.penalty), False
        self.penalty.begin(models)
        for rejected in range(self.penalty.attempts):
            penalties = self.penalty.penalties()
            with self.parallel.phase("maximization"):
                parts, measures = self._proposed(models, penalties)
            after = self.parallel.propagate(problem, group_controls(self.controls, models, parts))
            trial = Trial(measures, penalties, before.objective, after.objective, before.epsilon)
            if self.penalty.accepts(trial):
                # as float32: what has risen beyond it is on its way to infinity
                if not (torch.tensor(after.objective).isfinite() or after.objective <= before.objective):
                    raise NonFiniteError(
                        f"iteration {self.iteration + 1}: J becomes {after.objective} (it was "
                        f"{before.objective}); the controls have been left unchanged; use a larger rho, or a "
                        "penalty rule that rejects (AcceptReject)")
                self.acceleration.accept(models, penalties, parts)
                return _Tried(after, measures, penalties, True, rejected)
            if told and trial.in_rounding:  # longer steps were rejected, shorter ones promise even less
                break
            told |= not trial.in_rounding
        # nothing has been learned: the next iteration begins as this one did, without old directions
        self.penalty, self.acceleration = rule, deepcopy(self._given)
        return _Tried(after, measures, penalties, False, rejected + 1)


class MSA(ExtendedMSA):
    """Basic MSA ([LCTE] Algorithm 1): both penalties zero and every argmax taken. May diverge.

    theta_n <- argmax over Theta_n of H_n(x_n, p_{n+1}, theta). Without a penalty the argmax of an affine or
    linear-in-control Hamiltonian exists only with a quadratic running cost, in a bounded set, or within the
    iterations of LBFGS, which is the default for small controls too. problem, controls, maximizer,
    perturbation, parallel: as ExtendedMSA's.
    """

    def __init__(self, problem: ControlProblem, controls: Sequence[Tensor] | None = None, *,
                 maximizer: Maximizer | None = None, perturbation: Perturbation | None = None,
                 parallel: StageParallel | None = None) -> None:
        super().__init__(problem, controls, maximizer=maximizer or ByForm(small=LBFGS()),
                         penalty=Fixed(Penalties(0.0, 0.0)), acceleration=Plain(), perturbation=perturbation,
                         parallel=parallel)


@dataclass(frozen=True)
class _Tried:
    propagation: SharedPropagation
    measures: list[Measures]
    penalties: list[Penalties]
    accepted: bool
    rejected: int


def _clock(device_of: Tensor) -> float:
    if device_of.is_cuda:
        torch.cuda.synchronize(device_of.device)
    return perf_counter()
