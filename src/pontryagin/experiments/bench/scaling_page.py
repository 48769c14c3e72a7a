"""The result of `bench scaling` as text, a picture and a page."""

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

from pontryagin.experiments.figures.canvas import log_ticks, new_figure, png, style
from pontryagin.experiments.report import frame
from pontryagin.experiments.run_directory import write_bytes, write_text

HEAD = ("series", "maximizer", "stages", "width", "samples", "processes", "ms per iteration", "speedup", "of the maximization",
        "ceiling", "propagation", "moments", "maximization", "communication", "peak MiB")


def write_scaling_page(folder: Path) -> str:
    """figures/scaling.png and report.html; returns the table as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    results = summary["results"]
    rows = [HEAD, *(_cells(row) for row in results["cases"])]
    picture = _draw(results)
    write_bytes(folder / "figures" / "scaling.png", picture)
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    exponents = "".join(f"<li>{escape(name)}: {value:.2f}</li>" for name, value in results["exponents"].items())
    write_text(folder / "report.html", frame("Scaling of extended MSA", (
        f"<h1>Scaling of extended MSA</h1><p><code>{escape(summary['command'])}</code></p><table>{cells}</table>"
        "<p>Medians over rounds; speedups are medians of ratios within a round. The ceiling is that of the maximization when "
        "every process does the whole iteration by itself at the same time: what cores that share caches and memory leave of "
        "their number. Parts are the busiest rank's, communication that of the rank that waits least; peak MiB is what an "
        f"iteration adds to the resident set.</p><p>Fitted exponents:</p><ul>{exponents}</ul>"
        f'<img alt="seconds by depth and by samples" src="data:image/png;base64,{base64.b64encode(picture).decode()}">')))
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{name}: exponent {value:.2f}" for name, value in results["exponents"].items())])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    shares = [_known(row["shares"][name], ".0%") for name in ("propagation", "moments", "maximization", "communication")]
    ratios = [f"{row[name]:.2f}" if name in row else "-" for name in ("speedup", "maximization_speedup", "ceiling")]
    return (row["series"], row["maximizer"], *(f"{row[name]:.0f}" for name in ("depth", "width", "samples", "processes")),
            f"{1000 * row['seconds']:.3g}", *ratios, *shares, _known(row["memory_mib"], ".0f"))


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _draw(results: dict[str, Any]) -> bytes:
    """One process: seconds of an iteration by depth and by samples."""
    with style():
        figure = new_figure(3.6)
        for axes, series in zip(figure.subplots(1, 2), ("depth", "samples"), strict=True):
            for name in dict.fromkeys(row["maximizer"] for row in results["cases"]):
                points = [(row[series], row["seconds"]) for row in results["cases"]
                          if row["series"] == series and row["maximizer"] == name]
                if points:
                    axes.loglog(*zip(*points, strict=True), marker="o", label=name)
            axes.set_xlabel("stages" if series == "depth" else "samples")
            axes.set_ylabel("seconds per iteration")
            axes.legend()
            log_ticks(axes.xaxis)
            log_ticks(axes.yaxis)
        return png(figure)
