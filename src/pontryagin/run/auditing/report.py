"""Figures and report.html of an audit."""

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from pontryagin.audit import Audit, Restriction
from pontryagin.run.files import write_bytes
from pontryagin.run.reports.page import details, frame, pictures
from pontryagin.run.reports.text import NONE, number, table
from pontryagin.run.tables import Drawing

_READING = """<dl>
<dt>Gain</dt><dd>What this stage alone could still gain by its argmax, all other stages as they are: the
Hamiltonian gain at the step where the quadratic model of the loss is best, in units of the loss; that model
promises half of it as decrease. It is a mean over pairs of different batches, so noise adds nothing, and it
may come out a little below zero.</dd> <dt>Gain here</dt><dd>The same for the audited samples taken as all the
data there is; never negative.</dd> <dt>Condition, effective rank</dt><dd>Of the second moment A of the
stage's inputs: largest over smallest eigenvalue, damped; tr(A)&sup2; / tr(A&sup2;) of as many as there are
inputs.</dd> <dt>Cost of a set</dt><dd>Change of the mean loss when this stage alone is moved to the nearest
point of the set; predicted from the costates of the outputs, true where it was measured. A negative cost is a
gain.</dd> </dl>"""


def write_report(folder: Path, audit: Audit) -> Path:
    """folder/figures/*.png and folder/report.html, from the audit and summary.json. Raises ReportError."""
    path = folder / "report.html"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    write_bytes(path, _page(audit, summary, lambda: _draw(folder, audit)).encode())
    return path


def _draw(folder: Path, audit: Audit) -> list[Drawing]:
    from pontryagin.run.figures.audit_figures import cost_figure, stage_figure
    from pontryagin.run.figures.canvas import png, style

    drawings = []
    with style():
        for name, sketch in (("stages", stage_figure(audit)), ("costs", cost_figure(audit))):
            if sketch is not None:
                path = folder / "figures" / f"{name}.png"
                write_bytes(path, png(sketch.figure))
                drawings.append(Drawing(name, sketch.title, sketch.caption, path))
    return drawings


def _page(audit: Audit, summary: dict[str, Any], draw: Callable[[], list[Drawing]]) -> str:
    title = f"Audit of {summary['settings']['model']}"
    parts = [f"<h1>{escape(title)}</h1>"]
    if summary["interrupted"]:
        parts.append('<p class="banner" role="status"><b>Interrupted.</b> True costs are missing where they '
                     'had not been '
                     "measured yet.</p>")
    parts += [f"<pre><code>{escape(summary['command'])}</code></pre>", _lead(audit)]
    parts.append(pictures(draw, titles=True))
    parts += ["<h2>Stage by stage</h2>", _stages(audit)]
    if audit.sets:
        parts += ["<h2>Costs of the sets, predicted / true</h2>", _costs(audit)]
    parts += ["<h2>How to read this</h2>", _READING]
    if audit.unseen:
        rows = [[escape(name), escape(why)] for name, why in audit.unseen.items()]
        parts += ["<h2>Not audited</h2>", f'<div class="text">{table(["parameter", "why"], rows)}</div>']
    return frame(title, "\n".join([*parts, details(summary | {"diverged": {}})]))


def _lead(audit: Audit) -> str:
    told = [f"Mean loss ({escape(audit.loss_name)}) {number(audit.loss)} &plusmn; {number(audit.loss_error)} "
            f"over {audit.samples} samples in {audit.batches} batches; {len(audit.stages)} stages.",
            f"Hamiltonian gain still to be had, all stages together: {number(audit.gain)} &plusmn; "
            f"{number(audit.gain_error)}."]
    if top := max(audit.stages, key=lambda stage: stage.gain or 0.0, default=None):
        told.append(f"Most of it at {escape(top.name)}: {number(top.gain)} &plusmn; "
                    f"{number(top.gain_error)}.")
    for name in audit.sets:
        ranking = audit.ranking(name)
        if ranking:
            (least, a), (most, b) = ranking[0], ranking[-1]
            agreement = audit.agreement(name)
            told.append(f"{escape(name)}: costs least at {escape(least.name)} ({_cost(a)}), most at "
                        f"{escape(most.name)} ({_cost(b)})"
                        + ("." if agreement is None
                           else f"; rank correlation with the truth {agreement:.2f}."))
    return "<ul>\n" + "\n".join(f"<li>{line}</li>" for line in told) + "\n</ul>"


def _stages(audit: Audit) -> str:
    head = ["stage", "kind", "shape", "gain", "gain here", "costate norm", "condition", "effective rank"]
    rows = [[escape(stage.name), escape(stage.kind), "&times;".join(map(str, stage.shape)),
             NONE if stage.gain is None else f"{number(stage.gain)} &plusmn; {number(stage.gain_error)}",
             number(stage.gain_here), number(stage.costate_norm), number(stage.condition),
             f"{stage.effective_rank:.1f} of {stage.inputs}"]
            for stage in audit.stages]
    return table(head, rows)


def _costs(audit: Audit) -> str:
    rows = []
    for stage in audit.stages:
        if stage.restrictions:
            cells = [(each, stage.restriction(each)) for each in audit.sets]
            rows.append([escape(stage.name),
                         *(NONE if found is None else f"{_cost(found)}<br><small>rank {found.rank}</small>"
                                               for _, found in cells)])
    return table(["stage", *map(escape, audit.sets)], rows)


def _cost(each: Restriction) -> str:
    return number(each.predicted) + ("" if each.true is None else f" / {number(each.true)}")
