"""The result of `bench scaling` as text, a picture and a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pontryagin.bench.scaling_worker import SHARES
from pontryagin.run.reports.page import Banner, Cells, Heading, pictures, write_page
from pontryagin.run.reports.words import NONE, lines, number
from pontryagin.run.tables import Sketch

Row = dict[str, Any]
_CASE = ("series", "maximizer", "stages", "width", "samples")
SEVERAL = (*_CASE, "processes", "ms, one process", "ms", "speedup", "of the maximization", "ceiling",
           "communication")
ALONE = (*_CASE, "ms", *SHARES, "peak MiB")
_WORDS = Markup(
    "Whole iterations, one thread a process. A speedup is that of the same round, so that a busy machine "
    "slows both; medians over the rounds. <b>Ceiling</b>: that of the maximization when every process does "
    "the whole iteration by itself at the same time, which is what cores that share caches, memory and clock "
    "leave of their number. Weak scaling has 20 stages a process: there one process has 20 in all.")
_WAYS = (("With other numbers of processes:", "pontryagin bench scaling --processes 2,4"),)
_ALONE = ("What one process takes: the time of an iteration, the shares of its parts, and what it adds to "
          "the resident set at its peak.")


def write_report(folder: Path) -> str:
    """figures/scaling.png and report.html; returns the tables as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    cases, exponents = summary["results"]["cases"], summary["results"]["exponents"]
    several, alone = _several(cases), _alone(cases)
    fitted = [[name, f"{value:.2f}"] for name, value in exponents.items()]
    write_page(folder, "Scaling of extended MSA", summary, [
        Heading("Several processes"), _WORDS, Cells(SEVERAL, several, names=2),
        Heading("By depth and by samples"),
        *pictures(folder, {"scaling": lambda: _seconds(cases)} if _drawn(cases) else {}),
        Cells(("exponents, fitted to the three largest sizes", ""), fitted),
        Heading("One process"), _ALONE, Cells(ALONE, alone, names=2)],
               Banner("Interrupted.", "Only what had been measured is shown."), headline(cases), _WAYS)
    return "\n\n".join(map(lines, ([SEVERAL, *several], [ALONE, *alone], [("exponent", ""), *fitted])))


def headline(cases: Sequence[Row]) -> str:
    """The largest speedup, or that there is none, beside its ceiling."""
    known = [row for row in cases if row["processes"] > 1 and row.get("speedup") is not None]
    if not known:
        return ""
    top = max(known, key=lambda row: row["speedup"])
    processes, ceiling = f"{top['processes']:.0f} processes", top.get("ceiling")
    said = (f"Largest speedup: {top['speedup']:.2f} by {processes}" if top["speedup"] > 1 else
            f"No speedup: {processes} take {1 / top['speedup']:.2f} times as long as one, at best")
    return said + (f", where the machine's cores allow {ceiling:.2f}" if ceiling is not None else "") + "."


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


def _named(row: Row) -> list[str]:
    return [row["series"], row["maximizer"], *(f"{row[name]:.0f}" for name in ("depth", "width", "samples"))]


def _milliseconds(seconds: float | None) -> str:
    return NONE if seconds is None else number(1000 * seconds)


def _known(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form).replace("%", " %")


def _drawn(cases: Sequence[Row]) -> list[str]:
    """The series that the picture shows, as far as they have been measured."""
    known = {row["series"] for row in cases}
    return [series for series in ("depth", "samples") if series in known]


def _seconds(cases: Sequence[Row]) -> Sketch:
    """One process: seconds of an iteration by depth and by samples."""
    from pontryagin.run.figures.canvas import legend_below, log_ticks, new_figure

    sheet, handles, drawn = new_figure(4.0), {}, _drawn(cases)
    for axes, series in zip(sheet.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        for name in dict.fromkeys(row["maximizer"] for row in cases):
            points = [(row[series], row["seconds"])
                      for row in cases if row["series"] == series and row["maximizer"] == name]
            if points:
                handles[name], = axes.loglog(*zip(*points, strict=True), marker="o", label=name)
        axes.set(title=f"By {series}", xlabel="stages" if series == "depth" else series,
                 ylabel="seconds per iteration")
        log_ticks(axes.xaxis)
        log_ticks(axes.yaxis)
    legend_below(sheet, list(handles.values()))
    return Sketch("Seconds by depth and by samples",
                  "Seconds of an iteration of one process, on logarithmic axes.", sheet)
