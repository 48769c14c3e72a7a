"""What a run directory holds, read and checked: CSV tables, summary.json, drawings."""

import csv
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from pontryagin.run.content import check_ends, read_bytes
from pontryagin.run.errors import ExperimentError


class ReportError(ExperimentError):
    """A file of a run directory is missing, or is not what figures and report need."""


@dataclass(frozen=True)
class Sketch:
    """A picture not yet on disk. title and caption: plain text; figure: matplotlib's."""

    title: str
    caption: str
    figure: Any


@dataclass(frozen=True)
class Drawing:
    """A picture of a run directory. name: of the file, without suffix; caption: plain text; path: the PNG;
    seen: what it shows, for those who do not see it; narrow: the PNG for a phone."""

    name: str
    title: str
    caption: str
    path: Path
    seen: str = ""
    narrow: Path | None = None


@dataclass(frozen=True)
class Table:
    """Columns of equal length by name. Numbers: nan is an empty cell, inf one that says nan or inf."""

    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    def where(self, **equal: object) -> "Table":
        """The rows in which every named column has the value."""
        keep = np.ones(len(self), dtype=bool)
        for column, value in equal.items():
            keep &= self.columns[column] == value
        return self.take(keep)

    def take(self, rows: np.ndarray) -> "Table":
        """Rows by index or by mask."""
        return Table({name: values[rows] for name, values in self.columns.items()})

    def sort(self, column: str) -> "Table":
        """Rows in increasing order of a column; equal ones keep their order."""
        return self.take(np.argsort(self.columns[column], kind="stable"))

    def seeds(self, order: str = "iteration") -> list["Table"]:
        """The rows of each seed, in increasing order of a column."""
        return [self.where(seed=seed).sort(order) for seed in self.values("seed")]

    def values(self, column: str) -> list[Any]:
        """The different values of a column, in order of appearance."""
        return list(dict.fromkeys(self.columns[column].tolist()))


def read_table(path: Path, text: Sequence[str], numbers: Sequence[str], optional: bool = False) -> Table:
    """The named columns of a CSV file with a header; others are ignored. Raises ReportError."""
    if optional and not path.exists():
        return _columns(path, csv.reader([",".join((*text, *numbers))]), text, numbers)
    try:
        with check_ends(path).open(newline="", encoding="utf-8") as file:
            return _columns(path, csv.reader(file), text, numbers)
    except csv.Error as error:
        raise ReportError(f"{path}: expected comma-separated values, found {error}") from error
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, error) from error


def read_summary(path: Path) -> dict[str, Any]:
    """summary.json, its results checked. Raises ReportError."""
    try:
        summary = json.loads(read_bytes(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ReportError(f"{path}: expected JSON, found {error}") from error
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, error) from error
    _expect(path, "", summary, ("experiment", "command", "interrupted", "results"))
    for figure, methods in _items(path, "results", summary["results"]):
        for method, result in _items(path, f"results.{figure}", methods):
            _check_result(path, f"results.{figure}.{method}", result)
    for name in ("settings", "versions", "machine", "tuning", "paper", "diverged"):
        _items(path, name, summary.setdefault(name, {}))
    for figure, methods in summary["diverged"].items():
        _items(path, f"diverged.{figure}", methods)
    for name, keys in (("tuning", ()), ("paper", ("loss", "iteration"))):
        for figure, methods in summary[name].items():
            for method, entry in _items(path, f"{name}.{figure}", methods):
                _expect(path, f"{name}.{figure}.{method}", entry, keys)
    return summary


def _columns(path: Path, lines: Iterator[list[str]], text: Sequence[str], numbers: Sequence[str]) -> Table:
    """Column by column, so that a table of a million rows stays small."""
    header = next(lines, [])
    missing = [name for name in (*text, *numbers) if name not in header]
    if missing:
        raise ReportError(f"{path}: expected the columns {', '.join((*text, *numbers))}, found "
                          f"{', '.join(header) or 'none'}; missing: {', '.join(missing)}")
    words: dict[str, list[str]] = {name: [] for name in text}
    values = {name: array("d") for name in numbers}
    for line, row in enumerate(lines, start=2):
        if len(row) != len(header):
            raise ReportError(f"{path}, line {line}: expected {len(header)} values, found {len(row)}")
        cells = dict(zip(header, row, strict=True))
        for name, word in words.items():
            word.append(intern(cells[name]))
        for name, value in values.items():
            value.append(_number(cells[name], path, line, name))
    return Table({**{name: np.array(word, dtype=object) for name, word in words.items()},
                  **{name: np.array(value) for name, value in values.items()}})


def _unreadable(path: Path, error: Exception) -> ReportError:
    if not isinstance(error, FileNotFoundError):
        return ReportError(f"{path}: expected a text file in UTF-8, found {error}")
    found = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    return ReportError(f"{path}: expected this file of a run, found no such file; the folder holds: "
                       f"{', '.join(found) or 'nothing'}")


def _number(value: str, path: Path, line: int, column: str) -> float:
    if not value or value.isspace():
        return nan
    try:
        number = float(value)
    except ValueError:
        raise ReportError(f"{path}, line {line}, column {column}: expected a number or nothing, found "
                          f"{value!r}") from None
    return inf if isnan(number) else number


def _check_result(path: Path, place: str, result: object) -> None:
    _expect(path, place, result, ("train_loss", "test_loss", "iterations_to", "evaluations_to", "seconds_to",
                                  "seconds_per_iteration", "learning_rate", "iterations"))
    assert isinstance(result, dict)
    for loss in ("train_loss", "test_loss"):
        _expect(path, f"{place}.{loss}", result[loss], ("median", "min", "max"))
    for cost in ("iterations_to", "evaluations_to", "seconds_to"):
        for target, entry in _items(path, f"{place}.{cost}", result[cost]):
            _expect(path, f"{place}.{cost}.{target}", entry, ("median", "reached", "seeds"))
            try:
                float(target)
            except ValueError:
                raise ReportError(f"{path}: {place}.{cost}: expected losses as keys, found "
                                  f"{target!r}") from None
            if target not in result["iterations_to"]:
                raise ReportError(f"{path}: {place}: expected the same losses in iterations_to and {cost}, "
                                  f"found {target!r} in {cost} only")


def _items(path: Path, place: str, value: object) -> list[tuple[str, Any]]:
    _expect(path, place, value, ())
    assert isinstance(value, dict)
    return list(value.items())


def _expect(path: Path, place: str, value: object, keys: Sequence[str]) -> None:
    where = f"{path}: {place}" if place else f"{path}"
    if not isinstance(value, dict):
        raise ReportError(f"{where}: expected an object in braces, found {json.dumps(value)[:60]}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ReportError(f"{where}: expected the keys {', '.join(keys)}, found "
                          f"{', '.join(value) or 'none'}; missing: {', '.join(missing)}")
