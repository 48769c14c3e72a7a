"""The runs of a panel as a file: a row a finished run, so that nothing is run twice."""

import csv
import sys
from collections.abc import Collection, Iterable
from dataclasses import astuple, fields
from math import isclose
from pathlib import Path

from pontryagin.bench.panel.trial import Outcome, Trial
from pontryagin.run.errors import ExperimentError
from pontryagin.run.files import Table

FILE = "runs.csv"
COLUMNS = (*(one.name for one in fields(Trial)), "ended", "seconds", "yardstick", "loss", "curve")
"""See Trial and Outcome. curve: iteration:seconds:loss, with spaces between the points."""


class Rows:
    """The rows of a folder, new ones at the end. Every row is whole in the file as soon as `add` returns."""

    def __init__(self, folder: Path, name: str = FILE) -> None:
        path = folder / name
        self.found = read(path) if path.exists() else {}
        self._table = Table(path, COLUMNS, keep=_whole(path) if path.exists() else None)

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """A finished run."""
        self.found[trial] = outcome
        curve = " ".join(f"{k}:{seconds!r}:{loss!r}" for k, seconds, loss in outcome.points)
        self._table.add(*astuple(trial), " ".join(outcome.ended.split()),
                        outcome.seconds, outcome.yardstick,
                        outcome.loss, curve)
        self._table.flush()

    def close(self) -> None:
        """The file."""
        self._table.__exit__()


def forget(folder: Path, methods: Collection[str]) -> None:
    """Drop the rows of these methods from the file."""
    path = folder / FILE
    kept = {trial: outcome for trial, outcome in read(path).items() if trial.method not in methods}
    new = folder / f".{FILE}.tmp"
    new.unlink(missing_ok=True)
    rows = Rows(folder, new.name)
    for trial, outcome in kept.items():
        rows.add(trial, outcome)
    rows.close()
    new.replace(path)


def read(path: Path) -> dict[Trial, Outcome]:
    """Raises ExperimentError for a file that is not of a panel."""
    csv.field_size_limit(sys.maxsize)
    content = path.read_bytes()[:_whole(path)].decode()
    rows = csv.DictReader(content.splitlines())
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise ExperimentError(f"{path}: expected the columns {', '.join(COLUMNS)}, found "
                              f"{', '.join(rows.fieldnames or ())}; name the folder of a panel")
    return dict(map(_parsed, rows))


def read_all(folder: Path) -> dict[Trial, Outcome]:
    """Of the folder and all below it, as of several shares. Raises ExperimentError where there is none, and
    where they are not of one panel."""
    paths = sorted(folder.rglob(FILE))
    if not paths:
        raise ExperimentError(f"{folder}: expected a {FILE} of a panel in it or below it, found none")
    parts = [*map(read, paths)]
    check_starts((trial, outcome.points[0][2]) for part in parts for trial, outcome in part.items())
    return {trial: outcome for part in parts for trial, outcome in part.items()}


def check_starts(losses: Iterable[tuple[Trial, float]]) -> None:
    """That runs of a network with equal seeds have begun at equal losses, whatever the method. Raises
    ExperimentError."""
    first: dict[tuple[str, int], float] = {}
    for trial, loss in losses:
        known = first.setdefault((trial.network, trial.seed), loss)
        if not isclose(known, loss, rel_tol=1e-3):
            raise ExperimentError(
                f"{FILE}: runs of {trial.network} with seed {trial.seed} began at a loss of {known:.6g}, "
                f"others at {loss:.6g}: data or network are not the same; put back those of then, or use "
                "another folder")


def _whole(path: Path) -> int:
    """Bytes up to the end of the last whole line: a killed process may leave a piece of one."""
    return path.read_bytes().rfind(b"\n") + 1


def _parsed(row: dict[str, str]) -> tuple[Trial, Outcome]:
    trial = Trial(row["network"], row["method"], int(row["seed"]), float(row["rate"]), float(row["decay"]),
                  float(row["warmup"]), int(row["iterations"]))
    points = [point.split(":") for point in row["curve"].split()]
    return trial, Outcome(row["ended"], float(row["seconds"]), float(row["yardstick"]),
                          tuple((int(k), float(seconds), float(loss)) for k, seconds, loss in points))
