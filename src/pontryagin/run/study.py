"""A study: an experiment of one process that fills tables and a summary, and keeps them at Ctrl-C."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pontryagin.run.environment import machine, threads, versions
from pontryagin.run.errors import need, unknown
from pontryagin.run.files import Table, opened, write_json


class Settings(Protocol):
    """A frozen dataclass of settings; all its fields go into summary.json."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def out(self) -> Path:
        """The folder."""

    @property
    def overwrite(self) -> bool:
        """Whether a run in the folder may be replaced."""


@dataclass
class Study:
    """out: the folder. tables: by the names of their files. interrupted: whether it is not complete."""

    out: Path
    tables: dict[str, Table]
    summary: Callable[[bool], dict[str, Any]]
    interrupted: bool = True

    def save(self) -> None:
        """The tables as they are, and summary.json."""
        for table in self.tables.values():
            table.flush()
        write_json(self.out / "summary.json", self.summary(self.interrupted))


@contextmanager
def study(name: str, settings: Settings, command: str, columns: Mapping[str, Sequence[str]],
          found: Callable[[], dict[str, Any]], number: int = 1) -> Iterator[Study]:
    """Make settings.out ready and open its tables (name: columns); torch works with so many threads inside.

    found: what summary.json says beside command, settings, versions and machine. Ctrl-C ends the body without
    an error: then the files hold what had been measured. Raises ExperimentError before any work.
    """
    with ExitStack() as stack:
        out = stack.enter_context(opened(settings.out, settings.overwrite))
        stack.enter_context(threads(number))
        tables = {file: stack.enter_context(Table(out / f"{file}.csv", each))
                  for file, each in columns.items()}
        running = Study(out, tables, lambda interrupted: {
            **described(name, settings, command), "interrupted": interrupted, **found()})
        running.save()
        with suppress(KeyboardInterrupt):
            yield running
            running.interrupted = False
        running.save()


def described(name: str, settings: Settings, command: str) -> dict[str, Any]:
    """What every summary.json begins with."""
    return {"experiment": name, "command": command, "settings": asdict(settings), "versions": versions(),
            "machine": machine()}


class Named(Protocol):
    """What can be asked for by name. needs: a package of an extra, or empty."""

    @property
    def name(self) -> str:
        """As options, tables and figures have it."""

    @property
    def needs(self) -> str:
        """As it is imported."""


N = TypeVar("N", bound=Named)


def choose(what: str, names: Sequence[str] | None, known: Mapping[str, N]) -> list[N]:
    """Those with these names, all if None, in the order of `known`. what: method, task, ..., as in the option
    --methods. Raises ExperimentError for a name that is unknown or whose package is missing."""
    if wrong := [name for name in names or () if name not in known]:
        raise unknown(what, wrong, known)
    chosen = [one for one in known.values() if names is None or one.name in names]
    for one in chosen:
        if one.needs:
            need(one.needs, f"{what} {one.name}", f"leave it out of --{what}s")
    return chosen
