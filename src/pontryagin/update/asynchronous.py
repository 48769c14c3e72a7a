"""Extended MSA without a barrier: every argmax on the newest states and costates there when it began."""

import weakref
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from threading import get_native_id
from time import perf_counter, sleep

import torch
from torch import Tensor

from pontryagin.distributed import Alone, Communicator, StageParallel, all_or_none, assign
from pontryagin.distributed.delivery import maximizer_of
from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer import ByForm, HamiltonianModel, Maximizer
from pontryagin.problem import ControlProblem, NonFiniteError, ProblemError
from pontryagin.trajectory import Propagation, StageGroup, Trajectory, stage_group
from pontryagin.update.penalty import AcceptReject, Trial
from pontryagin.update.record import IterationRecord, stage_records

_POLL = 0.005
"""Seconds after which a rank asks again what is ready on the others: little beside an argmax."""
_GONE = 5.0
"""Seconds that a thread may take for its last lines, on a machine that has no time for it."""
Found = tuple[Tensor, Measures, int]
"""New controls of a unit, what they promise, and the evaluations that they took."""


@dataclass(frozen=True)
class AsynchronousRecord(IterationRecord):
    """stages: those whose argmax was ready in this iteration. staleness: for each of them, how many
    iterations ago its states and costates were propagated. waited: seconds that this rank had nothing to do
    but wait for an argmax."""

    staleness: tuple[int, ...] = ()
    waited: float = 0.0


class AsynchronousMSA:
    """Extended MSA in which no stage waits for another ([LCTE] section 4: the argmax of the layers may run
    asynchronously).

    An iteration propagates the present controls, hands the new states and costates to every stage that is
    idle, takes the argmax that are ready, and tests the new controls as extended MSA does: J never rises.
    Stages that were taken or rejected are idle again, all others go on with the states that they began with.
    A stage's own controls are always the present ones, only its states and costates are old: its argmax
    promises the gain Delta H at these, and the test with the true J is what makes the step safe.

    problem, controls, maximizer: as ExtendedMSA's.
    staleness: >= 0, in iterations: states that are so old are waited for. 0 waits for all and is
        ExtendedMSA(acceleration=Plain()), an iteration for every trial; 1, the least that is asynchronous.
    penalty: AcceptReject without restart, since an iteration is one trial.
    communicator: the ranks, by default this process alone. Every rank is given the same problem and controls,
        propagates all samples, maximizes its stages, and takes the same results in the same iteration, so
        that controls and records (but for their times) are the same on all; which results are ready when
        depends on the machine, so two runs differ.
    workers: threads of a rank, >= 1. They work on copies of the stages; a dynamics that is a function over a
        module, instead of the module, is not copied, and must be safe to call from several threads.
    parts: into how many units the equal stages of a rank are cut, by default one for each worker.
    executor: in the place of threads; it is the caller's to close.

    Full batches alone. Raises ProblemError for wrong settings, and when a maximizer cannot take a stage;
    NonFiniteError when states or an argmax are not finite, on all ranks, with the controls of the last
    iteration. After an error every argmax begins anew in the next step.
    """

    def __init__(
        self,
        problem: ControlProblem,
        controls: Sequence[Tensor] | None = None,
        *,
        staleness: int = 1,
        maximizer: Maximizer | None = None,
        penalty: AcceptReject | None = None,
        communicator: Communicator | None = None,
        workers: int = 1,
        parts: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        if staleness < 0 or workers < 1 or (parts is not None and parts < 1):
            raise ProblemError("AsynchronousMSA: expected staleness >= 0, workers >= 1 and parts >= 1, found "
                               f"{staleness}, {workers}, {parts}")
        if penalty is not None and (not isinstance(penalty, AcceptReject) or penalty.restart):
            raise ProblemError(f"AsynchronousMSA: expected AcceptReject without restart, found {penalty}: an "
                               "iteration is one trial")
        self.problem, self.staleness = problem, staleness
        self.controls = problem.check_controls(problem.initial_controls() if controls is None else controls)
        self.maximizer = maximizer or ByForm()
        self.penalty = deepcopy(penalty) if penalty is not None else AcceptReject()
        self.communicator: Communicator = communicator or Alone()
        self.iteration = 0
        StageParallel(self.communicator).require_same(problem, self.controls, (
            staleness, self.maximizer, self.penalty, workers, parts))
        self._units = _units(problem, self.maximizer, self.communicator.size, parts or workers)
        self._own = None if executor is not None else _Threads(workers)
        self._executor: Executor = executor or self._own  # type: ignore[assignment]
        # a thread that ends while the interpreter does, in torch's own destructors, would abort it
        self._end = weakref.finalize(self, self._own.end) if self._own is not None else lambda: None
        self._began: dict[int, int] = {}
        self._penalties: dict[int, Penalties] = {}
        self._running: dict[int, Future[Found]] = {}
        self._here: tuple[Propagation, Trajectory | None] | None = None

    def step(self) -> AsynchronousRecord:
        """One iteration: it ends with the first test of new controls."""
        try:
            return self._step()
        except BaseException:
            self._forget()
            raise

    def _step(self) -> AsynchronousRecord:
        began, reused = perf_counter(), self._here is not None and self._here[0].controls is self.controls
        before, trajectory = self._propagated()
        self._hand_out(trajectory)
        waiting = perf_counter()
        ready = self._ready()
        waited = perf_counter() - waiting
        found = self._collect(ready)
        controls, penalties = list(self.controls), [self._penalties[number] for number in ready]
        for number, (new, _, _) in zip(ready, found, strict=True):
            for stage, control in zip(self._units[number].stages, new.unbind(), strict=True):
                controls[stage] = control
        after = Propagation(self.problem, tuple(controls))
        measures = [measure for _, measure, _ in found]
        accepted = self.penalty.accepts(Trial(measures, penalties, before.objective, after.objective,
                                               before.epsilon))
        ages = [self.iteration - self._began.pop(number) for number in ready]
        self.iteration += 1
        if accepted:
            self.controls, self._here = after.controls, (after, None)
        rows = [(record, age)
                for number, measure, own, age in zip(ready, measures, penalties, ages, strict=True)
                for record in stage_records(self.problem, self._units[number].stages, measure, own)]
        rows.sort(key=lambda row: row[0].stage)
        kept = after if accepted else before
        return AsynchronousRecord(
            iteration=self.iteration, objective_before=before.objective, objective_after=kept.objective,
            loss_after=kept.loss, trial_objective=after.objective, stages=tuple(record for record, _ in rows),
            accepted=accepted, rejected=int(not accepted),
            evaluations=(not reused) + 1 + max(count for *_, count in found),
            seconds=perf_counter() - began, staleness=tuple(age for _, age in rows), waited=waited)

    def solve(self, iterations: int) -> list[AsynchronousRecord]:
        """So many iterations; what is still being maximized then is not waited for."""
        return [self.step() for _ in range(iterations)]

    def close(self) -> None:
        """End the threads, as when the solver is deleted; an argmax that has begun is dropped when it is
        done."""
        self._end()

    def __enter__(self) -> "AsynchronousMSA":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _propagated(self) -> tuple[Propagation, Trajectory]:
        """States and costates at the present controls."""
        before, trajectory = self._here or (None, None)
        if before is None or before.controls is not self.controls:
            before, trajectory = Propagation(self.problem, self.controls), None
        trajectory = trajectory or before.trajectory()
        self._here = before, trajectory
        return before, trajectory

    def _hand_out(self, trajectory: Trajectory) -> None:
        """Give the newest states to the idle units; every rank knows all penalties."""
        idle = [number for number in range(len(self._units)) if number not in self._began]
        if not idle:
            return
        models = [self._model(self._units[number], trajectory) for number in idle]
        self.penalty.begin(models)
        for number, model, penalties in zip(idle, models, self.penalty.penalties(), strict=True):
            self._began[number], self._penalties[number] = self.iteration, penalties
            if self._units[number].owner == self.communicator.rank:
                self._running[number] = self._executor.submit(_maximize, model, penalties)

    def _model(self, unit: "_Unit", trajectory: Trajectory) -> "_LateModel":
        """Of a stage of its own: a call of a module as a function puts its parameters aside for a moment,
        which two threads must not do at once with one module."""
        group = stage_group(self.problem, unit.stages, self.controls, trajectory.states, trajectory.costates)
        return _LateModel(unit.maximizer, replace(group, stage=deepcopy(group.stage)))

    def _ready(self) -> list[int]:
        """The units to be taken, the same on all ranks: those done, at least one, and all too old to wait."""
        old = [number for number in self._running if self.iteration - self._began[number] >= self.staleness]
        wait([self._running[number] for number in old])
        while True:
            flags = torch.zeros(len(self._units))
            flags[[number for number, task in self._running.items() if task.done()]] = 1.0
            ready = self.communicator.sum(flags).nonzero().flatten().tolist()
            if ready:
                return ready
            # or until another rank may have something
            wait(self._running.values(), return_when=FIRST_COMPLETED,
                 timeout=None if self.communicator.size == 1 else _POLL)

    def _forget(self) -> None:
        """No stage is being maximized any more; what threads still find is dropped."""
        for task in self._running.values():
            task.cancel()
        self._began.clear()
        self._running.clear()

    def _collect(self, ready: Sequence[int]) -> list[Found]:
        """The results of these units, from their owners."""
        with all_or_none(self.communicator):
            own = {number: self._running.pop(number).result()
                   for number in ready if number in self._running}
        return [self._sent(number, own.get(number)) for number in ready]

    def _sent(self, number: int, own: Found | None) -> Found:
        if self.communicator.size == 1:
            assert own is not None
            return own
        unit = self._units[number]
        control = torch.stack([self.controls[stage] for stage in unit.stages])
        numbers = torch.zeros(len(unit.stages), 4, dtype=torch.float64)
        if own is not None:
            control = own[0]
            numbers = torch.stack([*own[1], torch.full_like(own[1].gain, own[2])], 1).double()
        counts = [len(unit.stages) * (rank == unit.owner) for rank in range(self.communicator.size)]
        mine = len(unit.stages) if own is not None else 0
        arriving = [self.communicator.broadcast(tensor[:mine], counts) for tensor in (control, numbers)]
        new, table = (one.wait()[unit.owner] for one in arriving)
        return new, Measures(*table[:, :3].unbind(1)), int(table[0, 3])


class _Threads(ThreadPoolExecutor):
    """Threads that are gone when end() returns, to the operating system too, as far as it tells."""

    def __init__(self, workers: int) -> None:
        self._numbers: list[int] = []
        numbers = self._numbers
        super().__init__(workers, "argmax", lambda: numbers.append(get_native_id()))

    def end(self) -> None:
        """What is waiting is left out; what runs is waited for."""
        self.shutdown(wait=True, cancel_futures=True)
        until = perf_counter() + _GONE
        while any(Path(f"/proc/self/task/{number}").exists() for number in self._numbers):
            if perf_counter() > until:
                return
            sleep(_POLL)


@dataclass(frozen=True)
class _Unit:
    """Equal stages that one rank maximizes together."""

    stages: tuple[int, ...]
    owner: int
    maximizer: Maximizer


class _LateModel:
    """A HamiltonianModel that is made when it is maximized, by the thread that does it."""

    def __init__(self, maximizer: Maximizer, group: StageGroup) -> None:
        self._maximizer, self.group, self.evaluations = maximizer, group, 0

    @cached_property
    def _model(self) -> HamiltonianModel:
        return self._maximizer.model(self.group)

    def maximize(self, penalties: Penalties) -> Tensor:
        return self._model.maximize(penalties)

    def measure(self, controls: Tensor) -> Measures:
        measured, self.evaluations = self._model.measure(controls), self._model.evaluations
        return measured


def _units(problem: ControlProblem, maximizer: Maximizer, ranks: int, parts: int) -> list[_Unit]:
    owners = assign([float(stage.size) for stage in problem.stages], ranks)
    units = []
    for group in problem.groups:
        for rank in range(ranks):
            own = tuple(stage for stage in group if owners[stage] == rank)
            cuts = [len(own) * part // parts for part in range(parts + 1)]
            units += [_Unit(own[first:last], rank, maximizer_of(maximizer, problem, group))
                      for first, last in pairwise(cuts) if first < last]
    return units


def _maximize(model: HamiltonianModel, penalties: Penalties) -> Found:
    new = model.maximize(penalties)
    if not new.isfinite().all():
        raise NonFiniteError(f"the argmax of stages {', '.join(map(str, model.group.indices))} is not "
                             "finite; use a larger rho")
    return new, model.measure(new), model.evaluations
