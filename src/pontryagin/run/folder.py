"""All that a training writes: the table, checkpoints, models, summary and report."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from types import NoneType
from typing import Any

import torch
from filelock import FileLock

import pontryagin
from pontryagin.distributed import Communicator
from pontryagin.distributed.agreement import raise_together
from pontryagin.optim import Pilot
from pontryagin.run import checkpoint
from pontryagin.run.callbacks import ProgressDisplay, ReportContext, Tracking
from pontryagin.run.checkpoint import CheckpointError
from pontryagin.run.environment import machine, versions
from pontryagin.run.errors import ExperimentError, nearest
from pontryagin.run.evaluation import Point
from pontryagin.run.facts import Facts, alike, differing, facts_of
from pontryagin.run.figures import left_out
from pontryagin.run.files import Table, names_in, prepare, sweep, take, write_json
from pontryagin.run.history import COLUMNS, History, row
from pontryagin.run.race import Run
from pontryagin.run.reports import training as report
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task
from pontryagin.run.tuning import RULE

_FIRST_REPORT = 2.0
"""Seconds after the start: soon something to look at, and none of a run that is over at once."""
_SHARE = 20
"""Reports and checkpoints in the course of a run take about one part in so many of its time: 5 %."""


class RunFolder:
    """Opened new, or where the checkpoint left off; `saved` is then its content. Raises ExperimentError
    before any work.

    facts: of the task. lock: of the folder, taken here. history: what decisions rest on; tuning: scores by
    method and rate; pilots: by method.
    """

    def __init__(self, task: Task, facts: Facts, settings: RunSettings, command: str,
                 display: ProgressDisplay, lock: FileLock, context: ReportContext) -> None:
        self.task, self.facts, self.settings, self.command = task, facts, settings, command
        self.display, self.context = display, context
        self.out, self.path = settings.out, settings.out / "checkpoint.pt"
        self.history = History()
        if Path(lock.lock_file).exists():
            take(lock)
        self.saved = self._resumed() if settings.resume else None
        if self.saved is None:
            prepare(settings.out, settings.overwrite)
        take(lock)
        sweep(self.out)
        self.tuning: dict[str, dict[float, float]] = self.saved["tuning"] if self.saved else {}
        self.pilots = _pilots(self.saved)
        self.tracking = Tracking(self.out / "tensorboard") if settings.tensorboard else None
        with ExitStack() as stack:
            self.table = stack.enter_context(
                Table(self.out / "metrics.csv", COLUMNS, self.saved["metrics"] if self.saved else None))
            if self.saved:
                self.history.read(self.out / "metrics.csv")
                self.history.stopped = self.saved["stopped"]
            else:
                write_json(self.out / "summary.json", self._summary("running"))
            stack.pop_all()
        self._checkpoint_due, self._report_due = 0.0, monotonic() + _FIRST_REPORT
        if without := left_out():
            display.say(f"{without}; when it is there, --resume draws them, after the end too")

    def record(self, run: Run, point: Point) -> None:
        """Every iteration up to 1000, then every tenth, and those that are evaluated."""
        if point.train is not None or point.iteration <= 1000 or point.iteration % 10 == 0:
            self.table.add(*row(self.task.name, run, point))
        self.history.take(run, point)
        if self.tracking:
            self.tracking.after(run, point)

    def checkpoint_if_due(self, index: int, runs: Sequence[Run]) -> None:
        """So often that checkpoints take a small share of the time."""
        if monotonic() >= self._checkpoint_due:
            self.checkpoint(index, runs)

    def checkpoint(self, index: int, runs: Sequence[Run]) -> None:
        """index: of the seed that the runs have, or how many seeds there are when all has been run."""
        begun = monotonic()
        length = self.table.settle()
        checkpoint.write_next(self.path, {
            **_identity(self.task), "facts": self.facts, "settings": self.settings.binding(),
            "command": self.command, "metrics": length,
            "index": index, "runs": [run.state_dict() for run in runs], "rates": dict(self.history.rates),
            "stopped": self.history.stopped, "tuning": self.tuning, "pilots": self._plain_pilots()})
        ended = monotonic()
        self._checkpoint_due = ended + max(self.settings.checkpoint_every, _SHARE * (ended - begun) if
                                           self.settings.checkpoint_every else 0.0)

    def save_model(self, run: Run, point: Point) -> None:
        """models/METHOD-seedSEED.pt: what `predict` evaluates."""
        (self.out / "models").mkdir(exist_ok=True)
        scores = {f"test_{name}": value for name, value in asdict(point.test).items()} if point.test else {}
        with run.trainer.evaluated() as model:
            checkpoint.write(self.out / "models" / f"{run.name}.pt", {
                **_identity(self.task), "dtype": self.settings.dtype, "method": run.method.name,
                "seed": run.seed,
                "rate": run.rate, "iteration": run.iteration, "scores": scores, "model": model.state_dict()})

    def report_if_due(self) -> None:
        """So often that reports take a small share of the time."""
        if monotonic() >= self._report_due:
            begun = monotonic()
            self.report("running")
            self._report_due = monotonic() + max(2.0, _SHARE * (monotonic() - begun))

    def report(self, state: str) -> Path:
        """summary.json, figures, report.html, whose path it is. state: running, interrupted, complete."""
        self.table.flush()
        write_json(self.out / "summary.json", self._summary(state))
        return report.write_report(self.out, self.context)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.table.__exit__()
        finally:
            if self.tracking:
                self.tracking.close()

    def _summary(self, state: str) -> dict[str, Any]:
        name, tuning = self.task.name, {**self.context.tuning, **self.tuning}
        return {
            "experiment": self.context.experiment, "command": self.command, "state": state,
            "interrupted": state != "complete",
            "task": self.task.description, "versions": versions(),
            "settings": self.settings.plain()
            | ({"rates": dict(self.history.rates)} if self.settings.find else {}),
            "machine": machine(),
            "objective": self.task.objective.name,
            "samples": {name: len(samples) for name, samples in self.task.parts().items()},
            "guess": self.task.guess(), "untuned": self.history.untuned(self.settings),
            "results": {name: self.history.results(self.settings.batch_size)},
            "tuning": {name: {method: {f"{rate:g}": score for rate, score in scores.items()}
                              for method, scores in tuning.items()}} if tuning else {},
            "tuning_rule": self.context.tuning_rule or f"{RULE}; {self.settings.tune} iterations",
            "pilots": {name: self._plain_pilots()} if self.pilots else {},
            "diverged": {name: self.history.stopped}, "paper": dict(self.context.paper)}

    def _plain_pilots(self) -> dict[str, list[dict[str, Any]]]:
        return {method: [vars(pilot) for pilot in pilots] for method, pilots in self.pilots.items()}

    def _resumed(self) -> dict[str, Any] | None:
        names_in(self.out)
        found = checkpoint.read_last(self.path)
        if found is None:
            self.display.say(f"No checkpoint in {self.out}: starting.")
            return None
        saved, trouble = found
        if trouble:
            self.display.say(trouble)
        _compare(self.path, saved, {**_identity(self.task), "settings": self.settings.binding(),
                                    "facts": self.facts})
        for name in differing(saved["facts"], self.facts, lambda: facts_of(self.task))[:1]:
            then = saved["facts"].get(name, {"words": "none"})["words"]
            raise CheckpointError(
                f"{self.path}: not as when the run began: {name} ({then} then, "
                f"{self.facts[name]['words']} now); put back the data and code of then (what these draw at "
                "random needs a seed), or start anew in another folder")
        return saved


def _pilots(saved: dict[str, Any] | None) -> dict[str, list[Pilot]]:
    """Of a checkpoint, by method."""
    return {method: [Pilot(**pilot) for pilot in pilots]
            for method, pilots in saved["pilots"].items()} if saved else {}


_CONTENT = {"settings": dict, "task": dict, "facts": dict, "index": int, "runs": list, "metrics": int,
            "rates": dict, "stopped": dict, "tuning": dict, "pilots": dict}
"""Of a checkpoint: what `RunFolder.checkpoint` writes."""
_RUN = {"method": str, "seed": int, "rate": float, "iteration": int, "evaluations": int, "seconds": float,
        "mean": float, "best": (float, NoneType), "waited": int, "ended": str,
        "model": dict, "trainer": dict, "random": dict}
"""Of each of its runs: see Run.state_dict."""


def _identity(task: Task) -> dict[str, Any]:
    return {"pontryagin": pontryagin.__version__, "torch": str(torch.__version__), "task": task.description}


def _compare(path: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises CheckpointError when the run would not go on as it began."""
    for package in ("pontryagin", "torch"):
        if saved.get(package) != now[package]:
            raise CheckpointError(f"{path}: was written with {package} {saved.get(package)}, this is "
                                  f"{now[package]}: go on with that version, evaluate it by `pontryagin "
                                  "predict`, or start anew with --overwrite")
    if saved["format"] < checkpoint.FORMAT:
        raise CheckpointError(f"{path}: is of format {saved['format']}, which does not tell data and network "
                              "of a run from others: evaluate it by `pontryagin predict`, or start anew with "
                              "--overwrite")
    checkpoint.check_kinds(path, saved, _CONTENT)
    for run in saved["runs"]:
        checkpoint.check_kinds(path, run if isinstance(run, dict) else {}, _RUN)
    try:
        _pilots(saved)
        known = all(isinstance(score, float) for scores in saved["tuning"].values()
                    for score in scores.values())
        for name in now["facts"].keys() & saved["facts"].keys():
            alike(name, saved["facts"][name], now["facts"][name])
    except (TypeError, AttributeError, LookupError, ValueError, RuntimeError):
        known = False
    if not known or not all(isinstance(reasons, list) for reasons in saved["stopped"].values()):
        raise CheckpointError(f"{path}: its facts, tuning or early stops are not as a run writes them: it "
                              "has been changed")
    differing = [f"{name}: {old!r} then, {new!r} now" for kind in ("task", "settings")
                 for name, old, new in _differences(saved[kind], now[kind])]
    if differing:
        raise CheckpointError(f"{path}: the run was begun with other settings ({'; '.join(differing)}): give "
                              "the same, or start anew in another folder")


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, old.get(name), new.get(name))
            for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]


def last_checkpoint(out: Path, resume: bool) -> dict[str, Any] | None:
    """With `resume` the folder's checkpoint; None when a run has only begun there, or without
    `resume`. Raises ExperimentError when there is no such folder, unless torchrun is to start this again
    after a failure, with the words of the first start."""
    if not resume:
        return None
    if not out.is_dir():
        if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
            return None
        near = nearest(out.name, [path.name for path in out.parent.glob("*") if path.is_dir()])
        hint = f"; did you mean {out.parent / near[0]}?" if near else ": leave --resume out to start a run"
        raise ExperimentError(f"--resume --out {out}: there is no such folder{hint}")
    found = checkpoint.read_last(out / "checkpoint.pt")
    if found is not None:
        checkpoint.check_kinds(out / "checkpoint.pt", found[0], {"settings": dict, "task": dict})
    return found and found[0]


class ReadOnlyFolder:
    """The folder of the processes that write nothing: knows what rank 0 found in it, and keeps the history
    that decisions rest on. See RunFolder; what it leaves out, rank 0 does."""

    def __init__(self, saved: dict[str, Any] | None) -> None:
        self.saved, self.history = saved, History()
        self.tuning: dict[str, dict[float, float]] = saved["tuning"] if saved else {}
        self.pilots = _pilots(saved)

    def record(self, run: Run, point: Point) -> None:
        """Into the history alone."""
        self.history.take(run, point)

    def _leave(self, *_: object) -> None:
        """To rank 0."""

    checkpoint = checkpoint_if_due = save_model = report_if_due = report = _leave


def open_together(communicator: Communicator,
                  folder: "RunFolder | ExperimentError | None") -> RunFolder | ReadOnlyFolder:
    """The folder on rank 0, a ReadOnlyFolder that knows its checkpoint on the others; all raise what kept
    rank 0 from opening it.

    folder: rank 0's, or why there is none; None on the others.
    """
    raise_together(communicator, folder if isinstance(folder, ExperimentError) else None)
    saved = communicator.gather(folder.saved if isinstance(folder, RunFolder) else None)[0]
    return folder if isinstance(folder, RunFolder) else ReadOnlyFolder(saved)
