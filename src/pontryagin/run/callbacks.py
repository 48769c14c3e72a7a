"""Who sees a training go: callbacks between its timed steps, a display, TensorBoard; and what it is for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pontryagin.run.evaluation import Point
from pontryagin.run.race import Run
from pontryagin.run.reports.page import Block


class Callback:
    """Sees every iteration of every run of a training and changes nothing of them; this one looks away."""

    def begin(self, runs: Sequence[Run]) -> None:
        """These runs take turns now, each from its iteration on: anew, or resumed."""

    def before(self, run: Run) -> None:
        """An iteration of it."""

    def after(self, run: Run, point: Point) -> None:
        """The iteration."""

    def end(self) -> None:
        """They have stopped."""


class ProgressDisplay(Callback):
    """Where a training says how far it is; this one says nothing."""

    def say(self, text: str) -> None:
        """A line that stays."""


_WARM, _TIMED, _ENOUGH = 2, 10, 3.0
"""Iterations that are not timed, for buffers and caches are made in them; iterations, or seconds, after which
the cost of a run is told."""


class TerminalDisplay(ProgressDisplay):
    """Bars with loss, accuracy, samples per second and time left; evaluations as lines of 80 columns or
    little more; once, what a run is going to take."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Progress | None = None
        self._ids: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[int, float]] = {}
        self._accuracy: dict[str, float | None] = {}
        self._runs: Sequence[Run] = ()
        self._warm: dict[str, tuple[int, float]] = {}
        self._told = False

    def begin(self, runs: Sequence[Run]) -> None:
        self._bars = Progress(TextColumn("{task.description}"), BarColumn(bar_width=10),
                              TextColumn("{task.fields[text]}"), console=self.console, transient=True,
                              refresh_per_second=4, disable=not self.console.is_terminal)
        self._bars.start()
        for run in runs:
            self._ids[run.name] = self._bars.add_task(run.title, total=run.length, completed=run.iteration,
                                                      text="")
            self._begun[run.name] = run.iteration, monotonic()
        self._runs = runs

    def after(self, run: Run, point: Point) -> None:
        assert self._bars is not None
        if point.test is not None:
            self._accuracy[run.name] = point.test.accuracy
            self.say(_evaluation_line(run, point))
        self._tell_cost(run)
        self._bars.update(self._ids[run.name], completed=run.iteration, text=self._text(run, point))

    def _tell_cost(self, run: Run) -> None:
        """Once, when the first iterations of every run have been timed."""
        if self._told:
            return
        if run.iteration - self._begun[run.name][0] == _WARM:
            self._warm[run.name] = run.iteration, run.watch.seconds
        costs = {one.method.name: self._cost(one) for one in self._runs}
        if all(cost is not None for cost in costs.values()):
            self._told = True
            each = ", ".join(f"{name} {_duration(cost or 0)}" for name, cost in costs.items())
            self.say(f"A run will take about: {each} (evaluations apart).")

    def _cost(self, run: Run) -> float | None:
        """Seconds of the whole run; None as long as too little of it has been timed."""
        if run.ended:
            return run.watch.seconds
        first, since = self._warm.get(run.name, (run.iteration, run.watch.seconds))
        done, seconds = run.iteration - first, run.watch.seconds - since
        return run.length * seconds / done if done >= _TIMED or seconds >= _ENOUGH else None

    def end(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=not self.console.is_terminal, markup=False)

    def _text(self, run: Run, point: Point) -> str:
        loss, accuracy = run.smoothed_loss, self._accuracy.get(run.name)
        first, since = self._begun[run.name]
        done = run.iteration - first
        each = (monotonic() - since) / done if done else 0.0
        left = f"  {_time(each * (run.length - run.iteration))} left" if done else ""
        return (f"epoch {point.epoch:.1f}" + ("" if loss is None else f"  loss {loss:.3g}")
                + ("" if accuracy is None else f"  {100 * accuracy:.2f} %")
                + f"  {run.samples_per_second:,.0f}/s{left}")


def _evaluation_line(run: Run, point: Point) -> str:
    assert point.train is not None
    assert point.test is not None
    accuracy = "" if point.test.accuracy is None else f" accuracy {100 * point.test.accuracy:6.2f} %"
    accuracy += "" if point.test.metric is None else f" metric {point.test.metric:<6.4g}"
    held = "" if point.validation is None else f" validation {point.validation.loss:<8.3g}"
    speed = f"  {run.samples_per_second:,.0f}/s" if point.iteration else ""
    return (f"{run.title}  epoch {point.epoch:5.2f}  train loss {point.train.loss:<8.3g} test "
            f"{point.test.loss:<8.3g}{accuracy}{held}{speed}")


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 60 else _time(seconds)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


class Tracking(Callback):
    """The same numbers for TensorBoard, an event file a run in folder/NAME; what had been written after the
    checkpoint of a resumed one is hidden."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # the settings have asked whether it is there

        self._make, self._folder = SummaryWriter, folder
        self._writers: dict[str, Any] = {}

    def after(self, run: Run, point: Point) -> None:
        if run.name not in self._writers:
            self._writers[run.name] = self._make(str(self._folder / run.name), purge_step=point.iteration)
        step, values = point.step, {}
        if step is not None:
            values = {"batch_loss": step.loss, "rho": step.rho, "optimality_gap": step.optimality_gap}
        for part in ("train", "test", "validation"):
            if (scores := getattr(point, part)) is not None:
                values |= {f"{part}_{name}": getattr(scores, name) for name in ("loss", "accuracy", "metric")}
        for key, value in values.items():
            if value is not None:
                self._writers[run.name].add_scalar(key, value, point.iteration)

    def close(self) -> None:
        """Write what waits."""
        for writer in self._writers.values():
            writer.close()


def _no_section(directory: Path, summary: dict[str, Any]) -> Sequence[Block]:
    return ()


@dataclass(frozen=True)
class ReportContext:
    """What a training is for: an experiment of the papers adds its own to summary and report.

    experiment: its name in summary.json. title: of the report, by default the task's. paper: values of the
    paper, by method, for summary.json. tuning: the scores of learning rates tried before the training, by
    method and rate, with the rule and budget in words. section: blocks of the report, after the results, from
    the folder and the summary. command: what resumes the training.
    """

    experiment: str = "train"
    title: str = ""
    paper: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    tuning_rule: str = ""
    section: Callable[[Path, dict[str, Any]], Sequence[Block]] = _no_section
    command: str = ""
