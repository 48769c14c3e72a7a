"""report.html: everything about a run on one page that needs no network, no scripts and no other file."""

import base64
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pontryagin.run.figures import left_out
from pontryagin.run.figures.method_style import figure_title
from pontryagin.run.files import write_bytes
from pontryagin.run.reports.text import lead, paper_table, results_table, table, tuning_table
from pontryagin.run.tables import Drawing, ReportError, read_summary

__all__ = ["ReportError", "details", "frame", "picture", "pictures", "write_report"]

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 66rem; background: #fff; color: #222;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #ddd; }
p, li, dd { max-width: 48rem; }
pre { background: #f5f5f5; padding: .6rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size:
.9rem; } .banner { background: #fff3d6; border-left: 4px solid #E69F00; padding: .6rem .9rem; } .wide {
overflow-x: auto; margin: 1rem 0; } table { border-collapse: collapse; font-size: .86rem;
font-variant-numeric: tabular-nums; } th, td { padding: .35rem .5rem; text-align: right; vertical-align: top;
white-space: nowrap; } th { font-weight: 600; vertical-align: bottom; white-space: normal; } thead {
border-bottom: 1.5px solid #666; } th:first-child, td:first-child { position: sticky; left: 0; background:
#fff; } th:first-child, td:first-child, .names2 :nth-child(2), .text td, .text th { text-align: left; } .text
td { white-space: normal; overflow-wrap: anywhere; } tbody tr { border-bottom: 1px solid #e6e6e6; } small {
color: #666; } .nowrap { white-space: nowrap; } figure { margin: 1.6rem 0; } figure img { width: 100%;
min-width: 42rem; height: auto; display: block; } @media print { figure img { min-width: 0; } } figcaption {
font-size: .9rem; color: #444; max-width: 48rem; margin-top: .5rem; } dt { font-weight: 600; } dd { margin: 0
0 .5rem; } summary { cursor: pointer; font-weight: 600; margin-top: 2.6rem; } @media print { body { max-width:
none; } figure, tr { break-inside: avoid; } }
"""

_GLOSSARY = """<dl>
<dt>Gain</dt><dd>How much the new control of a stage raises its Hamiltonian at the old states and costates.
Summed over the stages (the optimality gap, mu) it predicts the decrease of J, the objective.</dd>
<dt>Feasibility error</dt><dd>How far the new control moves the states and costates that the gain took as
fixed, squared. When it outweighs the gain, J can rise although a decrease was predicted.</dd>
<dt>rho</dt><dd>The price of feasibility errors in the argmax: a large rho means short, safe steps; rho = 0 is
basic MSA.</dd> </dl>"""

_DIFFERENCES = """<p>The paper's values are read off its plots. What differs here: the learning rates of the
first-order optimizers are tuned; the loss has no regularizer; the paper's E-MSA runs its L-BFGS on all layers
at once (batched), not layer by layer.</p>"""

_COLUMNS = """<p><small>Losses: median over the seeds, [least, greatest]. “to 0.1” and so on: median
iterations (it), evaluations of all stages (ev) and seconds (s) of training until the train loss was that low;
“—” where the median seed did not get there; “2/3 seeds” where not all did.</small></p>"""


def write_report(directory: Path, drawings: Sequence[Drawing]) -> Path:
    """directory/report.html from summary.json and the drawings, which are embedded. Raises ReportError."""
    path = directory / "report.html"
    write_bytes(path, _page(read_summary(directory / "summary.json"), drawings).encode())
    return path


def _page(summary: dict[str, Any], drawings: Sequence[Drawing]) -> str:
    title = f"{'Learning the sine' if summary['experiment'] == 'sine' else summary['experiment']} by the maximum principle"
    by_name = {drawing.name: drawing for drawing in drawings}
    parts = [f"<h1>{escape(title)}</h1>"]
    if summary["interrupted"]:
        parts.append('<p class="banner" role="status"><b>Interrupted.</b> This run was stopped before its '
                     'end: methods, '
                     "seeds or iterations are missing, and the numbers are those reached by then.</p>")
    parts += [f"<pre><code>{escape(str(summary['command']))}</code></pre>", lead(summary)]
    for figure, methods in summary["results"].items():
        drawing = by_name.pop(f"figure-1{figure}", None)
        parts += [f"<h2>{escape(figure_title(figure))}</h2>", picture(drawing) if drawing else ""]
        parts += [results_table(methods), _COLUMNS]
    if any(summary["paper"].values()):
        parts += ["<h2>Beside the paper</h2>", _DIFFERENCES,
                  paper_table(summary["paper"], summary["results"])]
    if any(summary["tuning"].values()):
        rule = f": {summary['tuning_rule']}" if summary.get("tuning_rule") else ""
        parts += ["<h2>Learning rates tried</h2>",
                  f"<p>The score of every rate, lower is better{escape(rule)}. Bold: the rate that was used; "
                  "— where a score is not finite or a rate was not tried.</p>",
                  tuning_table(summary["tuning"], summary["results"])]
    parts += ["<h2>How to read the following</h2>", _GLOSSARY] if by_name else []
    for drawing in by_name.values():
        parts += [f"<h2>{escape(drawing.title)}</h2>", picture(drawing)]
    parts.append(details(summary))
    return frame(title, "\n".join(parts))


def frame(title: str, body: str) -> str:
    """A page that stands alone. body: HTML."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src
'unsafe-inline'"> <title>{escape(title)}</title> <style>{_STYLE}</style> </head> <body> {body} </body> </html>
"""


def pictures(draw: Callable[[], Sequence[Drawing]], titles: bool = False) -> str:
    """What is drawn, with captions and perhaps titles, or why it cannot be drawn. Raises ReportError."""
    if without := left_out():
        return f'<p class="banner" role="status">{escape(without)}</p>'
    return "\n".join((f"<h2>{escape(drawing.title)}</h2>\n" if titles else "") + picture(drawing)
                     for drawing in draw())


def picture(drawing: Drawing) -> str:
    """The drawing with its caption, embedded. Raises ReportError."""
    try:
        content = drawing.path.read_bytes()
    except OSError as error:
        raise ReportError(f"{drawing.path}: expected the PNG file of the drawing {drawing.name!r}, found "
                          f"{error}") from error
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ReportError(f"{drawing.path}: expected a PNG file, found one that begins with {content[:8]!r}")
    data = base64.b64encode(content).decode()
    return (f'<figure><div class="wide"><img alt="{escape(drawing.title)}" '
            f'src="data:image/png;base64,{data}"></div>\n'
            f"<figcaption>{escape(drawing.caption)}</figcaption></figure>")


def details(summary: dict[str, Any]) -> str:
    """Settings, versions, machine and early stops, folded."""
    sections = []
    for name in ("settings", "versions", "machine"):
        rows = [[escape(key), escape(value)] for key, value in _flat(summary[name])]
        if rows:
            sections.append(f'<h3>{name.capitalize()}</h3>\n<div '
                            f'class="text">{table(["name", "value"], rows)}</div>')
    stops = [[escape(f"({figure})"), escape(method), escape(str(message))]
             for figure, methods in summary["diverged"].items() for method, messages in methods.items()
             for message in messages]
    if stops:
        sections.append('<h3>Stopped early</h3>\n<div '
                        f'class="text">{table(["figure", "method", "why"], stops)}</div>')
    return f"<details><summary>Settings, versions and machine</summary>\n{''.join(sections)}\n</details>" if sections else ""


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines, inner names after a dot."""
    lines = []
    for key, value in values.items():
        lines += _flat(value, f"{prefix}{key}.") if isinstance(value,
                                                               dict) else [(f"{prefix}{key}", str(value))]
    return lines
