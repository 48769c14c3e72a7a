"""The result of `bench scaling` as text, a picture and a page."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from pontryagin.bench.scaling_cases import SHARES
from pontryagin.run.files import write_text
from pontryagin.run.reports.page import details, frame, pictures
from pontryagin.run.reports.text import NONE, lines, number, table
from pontryagin.run.tables import Drawing

Row = dict[str, Any]
_CASE = ("series", "maximizer", "stages", "width", "samples")
SEVERAL = (*_CASE, "processes", "ms, one process", "ms", "speedup", "of the maximization", "ceiling",
           "communication")
ALONE = (*_CASE, "ms", *SHARES, "peak MiB")
_WORDS = """<p>Whole iterations, one thread a process. A speedup is that of the same round, so that a busy
machine slows both; medians over the rounds. <b>Ceiling</b>: that of the maximization when every process does
the whole iteration by itself at the same time, which is what cores that share caches, memory and clock leave
of their number. Weak scaling
has 20 stages a process: there one process has 20 in all.</p>"""
_ALONE = """<p>What one process takes: the time of an iteration, the shares of its parts, and what it adds to
the resident set at its peak.</p>"""


def write_scaling_page(folder: Path) -> str:
    """figures/scaling.png and report.html; returns the tables as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    results = summary["results"]
    several, alone = _several(results["cases"]), _alone(results["cases"])
    fitted = [[name, f"{value:.2f}"] for name, value in results["exponents"].items()]
    body = [f"<h1>Scaling of extended MSA</h1><pre><code>{escape(summary['command'])}</code></pre>",
            "<h2>Several processes</h2>", _WORDS, _html(SEVERAL, several, 2),
            "<h2>By depth and by samples</h2>", pictures(lambda: _draw(folder, results["cases"])),
            _html(("fitted exponents, the three largest", ""), fitted),
            "<h2>One process</h2>", _ALONE, _html(ALONE, alone, 2), details({"diverged": {}, **summary})]
    write_text(folder / "report.html", frame("Scaling of extended MSA", "\n".join(body)))
    return "\n\n".join((lines([SEVERAL, *several]), lines([ALONE, *alone]),
                        lines([("exponent", ""), *fitted])))


def _several(cases: Sequence[Row]) -> list[list[str]]:
    single = {_same(row): row["seconds"] for row in cases if row["processes"] == 1}
    return [[*_named(row), f"{row['processes']:.0f}", _milliseconds(single.get(_same(row))),
             _milliseconds(row["seconds"]),
             *(_known(row.get(name), ".2f") for name in ("speedup", "maximization_speedup", "ceiling")),
             _known(row["shares"]["communication"], ".0%")] for row in cases if row["processes"] > 1]


def _alone(cases: Sequence[Row]) -> list[list[str]]:
    return [[*_named(row), _milliseconds(row["seconds"]),
             *(_known(row["shares"][name], ".0%") for name in SHARES), _known(row["memory_mib"], ".0f")]
            for row in cases if row["processes"] == 1]


def _same(row: Row) -> tuple[Any, ...]:
    """What one process and several have in common: in weak scaling not the depth."""
    return (row["series"], row["maximizer"], row["width"], row["samples"],
            None if row["series"] == "weak" else row["depth"])


def _case(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("series", "maximizer", "depth", "width", "samples"))


def _named(row: Row) -> list[str]:
    series, maximizer, *sizes = _case(row)
    return [series, maximizer, *(f"{size:.0f}" for size in sizes)]


def _milliseconds(seconds: float | None) -> str:
    return NONE if seconds is None else number(1000 * seconds)


def _known(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def _html(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    return table([escape(cell) for cell in head], [[escape(cell) for cell in row] for row in rows], names)


def _draw(folder: Path, cases: Sequence[Row]) -> list[Drawing]:
    from pontryagin.bench.scaling_curves import draw_scaling

    return [draw_scaling(folder, cases)]
