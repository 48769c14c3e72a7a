"""report.html of `reproduce saddle`, and its numbers as text."""

import json
from html import escape
from pathlib import Path
from typing import Any

from pontryagin.papers.saddle.experiment import SaddleResults
from pontryagin.papers.saddle.figure import saddle_figure
from pontryagin.papers.saddle.hessians import negative
from pontryagin.run.figures.canvas import png, style
from pontryagin.run.files import write_bytes
from pontryagin.run.reports.page import details, frame, picture
from pontryagin.run.reports.text import table
from pontryagin.run.tables import Drawing

_HEAD = ("method", "iteration", "loss", "gradient norm", "least eigenvalue", "greatest eigenvalue")


def write_report(folder: Path, results: SaddleResults) -> tuple[Path, str]:
    """The figure and report.html, beside the run's summary.json; returns its path and the ends of the spectra
    as text."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    body = ["<h1>The saddle beside the zero initialization</h1>",
            f"<pre><code>{escape(str(summary['command']))}</code></pre>"]
    if summary["interrupted"]:
        body.append('<p class="banner" role="status"><b>Interrupted.</b> Places along the runs are '
                    'missing.</p>')
    if results.spectra:
        with style():
            sketch = saddle_figure(results)
            path = folder / "figures" / "saddle.png"
            write_bytes(path, png(sketch.figure))
        body.append(picture(Drawing("saddle", sketch.title, sketch.caption, path)))
    lines = [f"{name}: eigenvalues from {float(values[0]):.4g} to {float(values[-1]):.4g}, "
             f"{negative(values)} of "
             f"{len(values)} negative" for name, (values, _) in results.spectra.items()]
    body += [f"<p>{escape(line)}.</p>" for line in lines]
    rows = [[escape(str(place.row[0])), str(place.row[1]), *(f"{value:.3g}" for value in place.row[2:])]
            for place in results.places]
    body += [table(_HEAD, rows), details(summary | {"diverged": {}})]
    page = folder / "report.html"
    write_bytes(page, frame("The saddle beside the zero initialization", "\n".join(body)).encode())
    return page, "\n".join(lines)
