"""Progress of long work, for people: bars on a terminal, a line a task elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Advance = Callable[[int, float | None], None]
"""How far the task is, and the loss there if there is one."""


class Progress:
    """Where a piece of work says how far it is; this one says nothing."""

    @contextmanager
    def task(self, title: str, length: int) -> Iterator[Advance]:
        """A piece of work of so many steps."""
        yield lambda done, loss: None

    def say(self, text: str) -> None:
        """A line that stays."""


class TerminalProgress(Progress):
    """A bar while a task runs, drawn at most a few times a second, and a line when it has ended."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def task(self, title: str, length: int) -> Iterator[Advance]:
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
        self.say(title if loss is None else f"{title}  train loss {loss:.3g}{after}")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=not self.console.is_terminal)
