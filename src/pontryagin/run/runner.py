"""The run: every seed, the methods side by side, so that it can be stopped at any moment and goes on
bitwise."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pontryagin.run import randomness
from pontryagin.run.board import Board
from pontryagin.run.errors import ExperimentError
from pontryagin.run.follower import Follower, open_together
from pontryagin.run.history import sentences
from pontryagin.run.job import Job
from pontryagin.run.lock import Lock
from pontryagin.run.methods import METHODS, Method, choose
from pontryagin.run.processes import StopTogether, present, require_same_run
from pontryagin.run.purpose import Purpose
from pontryagin.run.run_folder import RunFolder
from pontryagin.run.settings import RunSettings
from pontryagin.run.stop import Stop
from pontryagin.run.task import Task
from pontryagin.run.tuning import score
from pontryagin.run.watcher import Unwatched, Watcher


@dataclass(frozen=True)
class Outcome:
    """out: the folder with everything; interrupted: whether something is left to be run by a resume;
    sentences: what each method reached; report: the page, None where another process writes it."""

    out: Path
    interrupted: bool
    sentences: list[str]
    report: Path | None


def run_training(task: Task, settings: RunSettings, command: str, board: Board,
                 watcher: Watcher | None = None, purpose: Purpose | None = None) -> Outcome:
    """Train, evaluate and write into settings.out; Ctrl-C stops after the current iteration, with a
    checkpoint.

    watcher: looks at every job between its timed steps. The same task and settings give the same controls bit
    by bit, in one piece or resumed after any kill. Raises ExperimentError before any work when something is
    wrong with the task, the settings or the folder.
    """
    with _threads(settings.threads):
        task = task.to(*settings.place())
        task.check()
        _check(task, settings)
        with _folder(task, settings, command, board, purpose or Purpose()) as folder:
            with Stop() as stop:
                finished = _Run(task, settings, folder, board, StopTogether(stop),
                                watcher or Unwatched()).run()
            report = folder.report("complete" if finished else "interrupted")
    return Outcome(settings.out, not finished,
                   sentences({task.name: folder.history.results(settings.batch_size)}), report)


@dataclass
class _Run:
    task: Task
    settings: RunSettings
    folder: RunFolder | Follower
    board: Board
    stop: StopTogether
    watcher: Watcher
    _current: Job | None = field(default=None)

    def run(self) -> bool:
        """Whether everything has been run."""
        saved, seeds = self.folder.saved, self.settings.seeds
        first = saved["index"] if saved else 0
        if first >= len(seeds):
            self.board.say(f"{self.settings.out} is complete: nothing is left to be run.")
            return True
        if saved is None:
            self.folder.checkpoint(0, [])
        if not self._tune():
            return False
        for index in range(first, len(seeds)):
            states = {state["method"]: state for state in saved["jobs"]} if saved and index == first else {}
            jobs = self._jobs(seeds[index], states)
            if not self._race(index, jobs):
                return False
            self.folder.checkpoint(index + 1, [])
        return True

    def _jobs(self, seed: int, states: dict[str, dict]) -> list[Job]:
        jobs = []
        for method in choose(self.settings.methods):
            job = Job(self.task, self.settings, method, seed, self.folder.history.rates[method.name])
            for note in job.notes if seed == self.settings.seeds[0] else ():
                self.board.say(f"{method.name}: {note}")
            if method.name in states:
                job.load_state_dict(states[method.name])
            else:
                self._take_turn(job)
                self.folder.record(job, job.start())
            jobs.append(job)
        return jobs

    def _race(self, index: int, jobs: Sequence[Job]) -> bool:
        """An iteration each in turn until all have ended; whether that was reached. Whose turn it is depends
        on the iteration counts alone, so that it is the same after a resume."""
        self.board.begin(jobs)
        try:
            self.watcher.begin(jobs)
            while True:
                active = [job for job in jobs if not job.ended]
                if not active:
                    return True
                self._iterate(min(active, key=lambda job: job.iteration))
                if self.stop.asked:
                    self._checkpoint(index, jobs, due=True)
                    return False
                self._checkpoint(index, jobs, due=False)
        finally:
            self.watcher.end()
            self.board.end()

    def _iterate(self, job: Job) -> None:
        self._take_turn(job)
        self.watcher.before(job)
        point = job.advance()
        self.watcher.after(job, point)
        self.folder.record(job, point)
        self.board.show(job, point)
        if job.ended:
            self.folder.save_model(job, point)
        if job.ended.startswith("not finite"):
            self.folder.history.stopped.setdefault(job.method.name,
                                                   []).append(f"seed {job.seed}: {job.ended}")
            self.board.say(f"{job.name}: stopped after {job.iteration} iterations: {job.ended}")
        if point.train is not None:
            self.folder.report_if_due()

    def _checkpoint(self, index: int, jobs: Sequence[Job], due: bool) -> None:
        if self._current is not None:
            self._current.random = randomness.capture()
        if due:
            self.folder.checkpoint(index, jobs)
        else:
            self.folder.checkpoint_if_due(index, jobs)

    def _take_turn(self, job: Job) -> None:
        """The global generators are the job's."""
        if self._current is not job:
            if self._current is not None:
                self._current.random = randomness.capture()
            randomness.restore(job.random)
            self._current = job

    def _tune(self) -> bool:
        """The rate of every method: the user's, the best of its grid, or its default. Whether that was
        reached."""
        rates = self.folder.history.rates
        for method in choose(self.settings.methods):
            if method.name in self.settings.rates:
                rates[method.name] = self.settings.rates[method.name]
            elif self.settings.tune and len(method.rates) > 1:
                if not self._tune_method(method):
                    return False
                scores = self.folder.tuning[method.name]
                rates[method.name] = min(scores, key=scores.__getitem__)
            else:
                rates[method.name] = method.rates[0]
        return True

    def _tune_method(self, method: Method) -> bool:
        scores = self.folder.tuning.setdefault(method.name, {})
        for rate in method.rates:
            if rate in scores:
                continue
            found = score(self.task, self.settings, method, rate, lambda: not self.stop.asked)
            if found is None:
                return False
            scores[rate] = found
            self.board.say(f"{method.name}: rate {rate:g} scores {found:.3f}")
            self.folder.checkpoint(0, [])
        return True


def _check(task: Task, settings: RunSettings) -> None:
    if settings.target_accuracy is not None and not task.objective.classifies:
        raise ExperimentError("--target-accuracy needs a loss of classification, found "
                              f"{task.objective.name}; use --target-loss")
    for name in settings.methods:
        job = Job(task, settings, METHODS[name], settings.seeds[0],
                  settings.rates.get(name, METHODS[name].rates[0]))
        require_same_run(task.description, settings.binding(), job.trainer.model)


@contextmanager
def _folder(task: Task, settings: RunSettings, command: str, board: Board, purpose: Purpose
            ) -> Iterator[RunFolder | Follower]:
    """Written by rank 0 alone; every process knows the checkpoint in it."""
    communicator = present()
    if communicator.rank:
        yield open_together(communicator, None)
        return
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(Lock(settings.out))
            found: RunFolder | ExperimentError = stack.enter_context(RunFolder(task, settings, command, board,
                                                                               lock, purpose))
        except ExperimentError as error:
            found = error
        yield open_together(communicator, found)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
