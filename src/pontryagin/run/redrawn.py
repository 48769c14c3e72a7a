"""The files of a training that was stopped by force, put in order for its page."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from pontryagin.run import checkpoint
from pontryagin.run.checkpoint import CheckpointError
from pontryagin.run.errors import ExperimentError
from pontryagin.run.files import names_in, take, write_json
from pontryagin.run.history import History
from pontryagin.run.tables import read_summary


@contextmanager
def at_rest(folder: Path) -> Iterator[Path]:
    """The folder of a run while no process works there. Raises ExperimentError."""
    if not (folder / "summary.json").is_file():
        found = "a file" if folder.is_file() else "no such folder" if not folder.is_dir() else "none there"
        raise ExperimentError(f"{folder}: expected the folder of a run, with its summary.json, found {found}")
    names_in(folder)
    lock = FileLock(folder / ".lock", thread_local=False)
    try:
        take(lock)
        yield folder
    finally:
        lock.release(force=True)


def settled(folder: Path) -> dict[str, Any]:
    """summary.json of a training. Where the run ended without its own last words, they are said: interrupted,
    with what metrics.csv has. Raises ExperimentError."""
    path = folder / "summary.json"
    summary = read_summary(path)
    if summary.get("state") != "running":
        return summary
    history = History()
    history.read(folder / "metrics.csv")
    history.rates = _rates(folder, summary)
    (name, before), = summary["results"].items()
    found = history.results(summary["settings"]["batch_size"])
    summary |= {"state": "interrupted", "interrupted": True,
                "results": {name: {method: before.get(method, {}) | result
                                   for method, result in found.items()}}}
    write_json(path, summary)
    return summary


def _rates(folder: Path, summary: dict[str, Any]) -> dict[str, float]:
    """By method, as the last checkpoint has them, or what was asked for."""
    asked: dict[str, float] = summary["settings"]["rates"]
    try:
        last = checkpoint.read_last(folder / "checkpoint.pt")
    except CheckpointError:  # which the page does not need
        return asked
    return asked | (last[0].get("rates", {}) if last else {})
