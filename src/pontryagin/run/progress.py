"""Progress of long work, for people: bars on a terminal, a line a task elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Advance = Callable[[int, float | None], None]
"""How far the task is, and the loss there if there is one."""


class Progress(Protocol):
    """Where a run says how far it is."""

    @contextmanager
    def task(self, title: str, length: int) -> Iterator[Advance]:
        """A piece of work of so many steps."""
        ...

    def say(self, text: str) -> None:
        """A line that stays."""


class Silent:
    """Says nothing."""

    @contextmanager
    def task(self, title: str, length: int) -> Iterator[Advance]:
        """Nothing to see."""
        yield lambda done, loss: None

    def say(self, text: str) -> None:
        """Nothing to hear."""


class TerminalProgress:
    """A bar while a task runs and a line when it has ended."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def task(self, title: str, length: int) -> Iterator[Advance]:
        """One bar, drawn at most a few times a second."""
        last: tuple[int, float | None] = (0, None)
        bars = Bars(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
                    TimeRemainingColumn(), TextColumn("{task.fields[loss]}"), console=self.console,
                    transient=True, refresh_per_second=4, disable=not self.console.is_terminal)
        with bars:
            bar = bars.add_task(title, total=length, loss="")

            def advance(done: int, loss: float | None) -> None:
                nonlocal last
                last = done, loss
                bars.update(bar, completed=done, loss="" if loss is None else f"loss {loss:.2e}")

            yield advance
        done, loss = last
        after = f" after {done:,} iterations" if length > 1 else ""
        ending = "" if loss is None else f"  train loss {loss:.3g}{after}"
        self.console.print(f"{title}{ending}", highlight=False)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, highlight=False)
