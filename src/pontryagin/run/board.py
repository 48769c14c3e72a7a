"""What people see of a run while it goes: a bar a job on a terminal, a line an evaluation."""

from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pontryagin.run.job import Job, Point


class Board(Protocol):
    """Where a run says how far it is."""

    def begin(self, jobs: Sequence[Job]) -> None:
        """These jobs take turns now."""

    def show(self, job: Job, point: Point) -> None:
        """After an iteration of it."""

    def end(self) -> None:
        """They have ended."""

    def say(self, text: str) -> None:
        """A line that stays."""


class SilentBoard:
    """Says nothing."""

    def begin(self, jobs: Sequence[Job]) -> None:
        """Nothing."""

    def show(self, job: Job, point: Point) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class TerminalBoard:
    """Bars with loss, accuracy, samples per second and time left; evaluations as lines."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Progress | None = None
        self._ids: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[int, float]] = {}
        self._accuracy: dict[str, float | None] = {}

    def begin(self, jobs: Sequence[Job]) -> None:
        self._bars = Progress(TextColumn("{task.description}"), BarColumn(bar_width=20),
                              TextColumn("{task.fields[text]}"), console=self.console, transient=True,
                              refresh_per_second=4, disable=not self.console.is_terminal)
        self._bars.start()
        for job in jobs:
            self._ids[job.name] = self._bars.add_task(_title(job), total=job.length, completed=job.iteration,
                                                      text="")
            self._begun[job.name] = job.iteration, monotonic()

    def show(self, job: Job, point: Point) -> None:
        assert self._bars is not None
        if point.test is not None:
            self._accuracy[job.name] = point.test.accuracy
            self.console.print(evaluation_line(job, point), highlight=False, soft_wrap=True, markup=False)
        self._bars.update(self._ids[job.name], completed=job.iteration, text=self._text(job, point))

    def end(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _text(self, job: Job, point: Point) -> str:
        loss, accuracy = job.smoothed_loss, self._accuracy.get(job.name)
        first, since = self._begun[job.name]
        done = job.iteration - first
        left = "" if not done else f"  {_time((monotonic() - since) / done * (job.length - job.iteration))} left"
        return (f"epoch {point.epoch:.1f}" + ("" if loss is None else f"  loss {loss:.3g}")
                + ("" if accuracy is None else f"  accuracy {100 * accuracy:.2f} %")
                + f"  {job.samples_per_second:,.0f} samples/s{left}")


def evaluation_line(job: Job, point: Point) -> str:
    """Of an evaluated point."""
    assert point.train is not None
    assert point.test is not None
    accuracy = "" if point.test.accuracy is None else f"  test accuracy {100 * point.test.accuracy:6.2f} %"
    speed = f"  {job.samples_per_second:,.0f} samples/s" if point.iteration else ""
    return (f"{_title(job)}  epoch {point.epoch:5.2f}  train loss {point.train.loss:<8.3g}  test loss "
            f"{point.test.loss:<8.3g}{accuracy}{speed}")


def _title(job: Job) -> str:
    seed = f" seed {job.seed}" if job.settings.seeds != (0,) else ""
    return f"{job.method.name}{seed}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
