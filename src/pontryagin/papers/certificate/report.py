"""report.html of `reproduce certificate`, and its table as text."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from pontryagin.papers.certificate.experiment import LABELS, TaskResult, verdicts
from pontryagin.papers.certificate.figure import certificate_figure
from pontryagin.papers.certificate.tasks import TASKS
from pontryagin.run.figures.canvas import Sketch, png, style
from pontryagin.run.figures.record_figure import record_figure
from pontryagin.run.files import write_bytes
from pontryagin.run.reports.page import details, frame, picture
from pontryagin.run.reports.text import lines, stacked, table
from pontryagin.run.tables import Drawing

HEAD = ("task", "rule", "rises of J", "rejected trials", "end J", "Adam's J (rate, iterations)",
        "iterations to Adam's J")
_WORDS = """<p>Full batches. Every rule measures the constant C of Lemma 2 in every trial and sets rho = 2C,
the largest C seen, an old one fading by 0.8 an iteration; <i>per stage</i> splits it over the stages. A trial
that does not lower J enough is maximized again with the C that it has shown. No rate is tuned. Adam's J is
the least that it reached with the best rate of its grid, in the iterations given; numbers are medians over
the seeds, [least, greatest].</p>"""


def write_report(folder: Path, results: Mapping[str, TaskResult]) -> tuple[Path, str]:
    """Figures and report.html, beside the run's summary.json; returns its path and the table as text."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    drawings, results = [], {name: result for name, result in results.items() if result.records}
    if results:
        with style():
            sketches = {"certificate": certificate_figure(results)}
            for name, result in results.items():
                sketches[f"iterations-{name}"] = record_figure(
                    result.records["estimate"][0], f"{TASKS[name].label}: {LABELS['estimate']}, first seed")
            drawings = [_save(folder, name, sketch) for name, sketch in sketches.items()]
    rows = [row for name, result in results.items() for row in _rows(name, result)]
    body = [f"<h1>{escape('Steps that certify themselves')}</h1>",
            f"<pre><code>{escape(str(summary['command']))}</code></pre>"]
    if summary["interrupted"]:
        body.append('<p class="banner" role="status"><b>Interrupted.</b> Tasks or seeds are missing.</p>')
    body += [_WORDS, table(HEAD, [[stacked(cell) for cell in row] for row in rows], 2)]
    for drawing in drawings:
        body += [f"<h2>{escape(drawing.title)}</h2>", picture(drawing)]
    path = folder / "report.html"
    write_bytes(path, frame("Steps that certify themselves", "\n".join([*body, details(summary)])).encode())
    return path, lines([HEAD, *rows])


def _rows(name: str, result: TaskResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for rule, found in verdicts(result).items():
        reached = found["iterations_to_adam"]
        to_goal = "-" if reached["median"] is None else f"{reached['median']:g} [{reached['min']}, {reached['max']}]"
        rows.append((TASKS[name].label, LABELS[rule], f"{found['rises']} of {found['iterations']}",
                     f"{found['rejected_share']['median']:.0%}", _spread(found["objective"]),
                     f"{_spread(found['adam_objective'])} ({result.rate:g}, "
                     f"{found['adam_iterations']['median']:g})",
                     f"{to_goal}, {reached['reached']}/{reached['seeds']} seeds"))
    return rows


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:.2g} [{values['min']:.2g}, {values['max']:.2g}]"


def _save(folder: Path, name: str, sketch: Sketch) -> Drawing:
    path = folder / "figures" / f"{name}.png"
    write_bytes(path, png(sketch.figure))
    return Drawing(name, sketch.title, sketch.caption, path)
