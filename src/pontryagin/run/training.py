"""A training: every seed, the methods in a race; stopped at any moment, it goes on bitwise."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from pontryagin.errors import ProblemError
from pontryagin.optim import Pilot
from pontryagin.run.callbacks import Callback, ProgressDisplay, ReportContext
from pontryagin.run.checkpoint import CheckpointError
from pontryagin.run.environment import threads
from pontryagin.run.errors import ExperimentError
from pontryagin.run.evaluation import Evaluation, Point, Scores, left_words
from pontryagin.run.facts import Facts, facts_of, require_same_run
from pontryagin.run.folder import ReadOnlyFolder, RunFolder, open_together
from pontryagin.run.history import headline, sentences
from pontryagin.run.methods import Method, choose
from pontryagin.run.processes import Stop, present
from pontryagin.run.race import Run, race
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task, horizon_of, run_of
from pontryagin.run.tuning import best, find, score_training, search


@dataclass(frozen=True)
class Outcome:
    """out: the folder with everything; interrupted: whether something is left to be run by a resume;
    sentences: what each method reached; headline: the methods beside each other, or one beside a guess;
    report: the page, None where another process writes it; stopped: why, by method, runs ended because of
    numbers that are not finite; failed: whether every method has such a run."""

    out: Path
    interrupted: bool
    sentences: list[str]
    headline: str
    report: Path | None
    stopped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    failed: bool = False


def run_training(task: Task, settings: RunSettings, command: str, display: ProgressDisplay,
                 callback: Callback | None = None, context: ReportContext | None = None) -> Outcome:
    """Train, evaluate and write into settings.out; Ctrl-C stops after the current iteration, with a
    checkpoint.

    callback: looks at every run between its timed steps. The same task and settings give the same controls
    bit by bit, in one piece or resumed after any kill. Raises ExperimentError before any work when something
    is wrong with the task, the settings or the folder.
    """
    with threads(settings.threads):
        task = task.to(*settings.place()).read_by(settings.num_workers)
        task.check()
        parameters, facts = _check(task, settings), facts_of(task)
        require_same_run(task.description, settings.binding(), facts, lambda: facts_of(task))
        with _folder(task, facts, settings, command, display, context or ReportContext()) as folder:
            display.say(f"{task.name}: {sizes(task)}; loss: {task.objective.name}")
            display.say(_outlook(task, settings, parameters))
            for name, methods in settings.left().items():
                display.say(f"--{name.replace('_', '-')} has no effect on {', '.join(methods)}.")
            with Stop() as stop:
                finished = _Training(task, settings, folder, display, stop, callback or Callback(),
                                     Evaluation(task, settings)).all_seeds()
            report = folder.report("complete" if finished else "interrupted")
    results = folder.history.results(settings.batch_size)
    return Outcome(settings.out, not finished, sentences({task.name: results}),
                   headline(results, task.guess(), folder.history.untuned(settings)), report,
                   folder.history.stopped, finished and {*settings.methods} <= {*folder.history.stopped})


def sizes(task: Task) -> str:
    """How many samples each part has, in words."""
    held = "" if task.validation is None else f", {len(task.validation):,} for validation"
    return f"{len(task.train):,} samples for training, {len(task.test):,} for testing{held}"


@dataclass
class _Training:
    """Its methods return whether what they are to do has been done, False when the training is to stop."""

    task: Task
    settings: RunSettings
    folder: RunFolder | ReadOnlyFolder
    display: ProgressDisplay
    stop: Stop
    callback: Callback
    evaluation: Evaluation

    def all_seeds(self) -> bool:
        """From where the folder's checkpoint is."""
        saved, seeds = self.folder.saved, self.settings.seeds
        first = saved["index"] if saved else 0
        if first >= len(seeds):
            self.display.say(f"{self.settings.out} is complete: nothing is left to be run.")
            return True
        if saved is None:
            self.folder.checkpoint(0, [])
        if not all(self._choose_rate(method) for method in choose(self.settings.methods)):
            return False
        for index in range(first, len(seeds)):
            states = {state["method"]: state for state in saved["runs"]} if saved and index == first else {}
            if not self._race(index, self._runs(seeds[index], states)):
                return False
            self.folder.checkpoint(index + 1, [])
        return True

    def _choose_rate(self, method: Method) -> bool:
        """The user's, the best of pilots or of the method's grid, or its default."""
        name, rates = method.name, self.folder.history.rates
        if name in self.settings.rates:
            rates[name] = self.settings.rates[name]
        elif self.settings.find:
            known = self.folder.pilots.setdefault(name, [])

            def done(pilot: Pilot) -> None:
                self.display.say(f"{name}: rate {pilot.rate:g}, loss {pilot.score:.4g} after "
                                 f"{pilot.iterations} iterations")
                self.folder.checkpoint(0, [])

            found = find(self.task, self.settings, method, known, lambda: not self.stop.asked, done)
            if found is None:
                return False
            self.display.say(f"{name}: {found.words}")
            rates[name] = found.rate
        elif not self.settings.tune or len(method.rates) == 1:
            rates[name] = method.rates[0]
        else:
            scores = self.folder.tuning.setdefault(name, {})

            def scored(rate: float, score: float) -> None:
                self.display.say(f"{name}: rate {rate:g} scores {score:.3f}")
                self.folder.checkpoint(0, [])

            if not search(method.rates, lambda rate: score_training(
                    self.task, self.settings, method, rate, lambda: not self.stop.asked), scores, scored):
                return False
            rates[name] = best(scores)
        return True

    def _runs(self, seed: int, states: dict[str, dict]) -> list[Run]:
        runs: list[Run] = []
        for method in choose(self.settings.methods):
            run = run_of(self.task, self.settings, method, seed, self.folder.history.rates[method.name])
            for note in run.notes if seed == self.settings.seeds[0] else ():
                self.display.say(f"{method.name}: {note}")
            if method.name in states:
                _go_on(run, states[method.name])
            else:
                with run.generators():
                    point = self.evaluation.start(run)
                self.folder.record(run, point)
                if seed == self.settings.seeds[0] and not runs:
                    self._tell_ignored(point)
            runs.append(run)
        return runs

    def _tell_ignored(self, point: Point) -> None:
        """Of the evaluated samples, once."""
        for part in self.task.parts():
            scores: Scores = getattr(point, part)
            if words := left_words(part, scores.ignored):
                self.display.say(words)

    def _race(self, index: int, runs: Sequence[Run]) -> bool:
        def turn(run: Run) -> bool:
            self._iterate(run)
            if self.stop.asked:
                self.folder.checkpoint(index, runs)
                return False
            self.folder.checkpoint_if_due(index, runs)
            return True

        self.display.begin(runs)
        try:
            self.callback.begin(runs)
            return race(runs, turn)
        finally:
            self.callback.end()
            self.display.end()

    def _iterate(self, run: Run) -> None:
        self.callback.before(run)
        with run.generators():
            point = self.evaluation.after(run, run.iterate())
        self.callback.after(run, point)
        self.folder.record(run, point)
        self.display.after(run, point)
        if run.ended:
            self.folder.save_model(run, point)
        if run.ended == "patience":
            self.display.say(f"{run.name}: stopped after {run.iteration} iterations: {run.waited} "
                             "evaluations without a better one")
        if run.ended.startswith("not finite"):
            stopped = self.folder.history.stopped.setdefault(run.method.name, [])
            stopped.append(f"seed {run.seed}: {run.ended}")
            self.display.say(f"{run.name}: stopped after {run.iteration} iterations: {run.ended}")
        if point.train is not None:
            self.folder.report_if_due()


def _go_on(run: Run, state: dict[str, Any]) -> None:
    """Raises CheckpointError when a state that has the seal of this package is not one of such a run."""
    try:
        run.load_state_dict(state)
    except (ExperimentError, ProblemError, RuntimeError, ValueError, TypeError, LookupError,
            AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{run.name}: the checkpoint does not hold the state of this run ({reason}): "
                              "it has been changed; start anew with --overwrite, or put back the checkpoint "
                              "before it") from error


def _outlook(task: Task, settings: RunSettings, parameters: int) -> str:
    """What a training is going to take."""
    iterations, seeds = horizon_of(task, settings), len(settings.seeds)
    times = [f"{len(settings.methods)} methods"] if len(settings.methods) > 1 else []
    times += [f"{seeds} seeds"] if seeds > 1 else []
    return (f"{parameters:,} parameters; {iterations:,} iterations of {settings.batch_size} samples"
            + (f", by {' and '.join(times)}" if times else ""))


def _check(task: Task, settings: RunSettings) -> int:
    """That all methods can begin; how many parameters the network has."""
    parameters = 0
    if settings.target_accuracy is not None and not task.objective.classifies:
        raise ExperimentError("--target-accuracy needs a loss of classification, found "
                              f"{task.objective.name}; use --target-loss")
    for method in choose(settings.methods):
        rate = settings.rates.get(method.name, method.rates[0])
        run = run_of(task, settings, method, settings.seeds[0], rate)
        parameters = sum(each.numel() for each in run.trainer.model.parameters())
    return parameters


@contextmanager
def _folder(task: Task, facts: Facts, settings: RunSettings, command: str, display: ProgressDisplay,
            context: ReportContext) -> Iterator[RunFolder | ReadOnlyFolder]:
    """Written by rank 0 alone; every process knows the checkpoint in it."""
    communicator = present()
    if communicator.rank:
        yield open_together(communicator, None)
        return
    with ExitStack() as stack:
        try:
            lock = FileLock(settings.out / ".lock", thread_local=False)
            stack.callback(lock.release, force=True)
            found: RunFolder | ExperimentError = stack.enter_context(
                RunFolder(task, facts, settings, command, display, lock, context))
        except ExperimentError as error:
            found = error
        yield open_together(communicator, found)
