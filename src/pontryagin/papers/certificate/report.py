"""report.html of `reproduce certificate`, its figures, and its table as text."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from pontryagin.papers.certificate.experiment import LABELS, TaskResult, verdicts
from pontryagin.papers.certificate.tasks import TASKS
from pontryagin.run.figures import canvas
from pontryagin.run.figures.curves import draw_band
from pontryagin.run.figures.iterations import record_figure
from pontryagin.run.figures.method_style import BLUE, GREEN, PINK, RED
from pontryagin.run.reports.page import Banner, Block, Cells, pictures, write_page
from pontryagin.run.reports.words import lines, stacked
from pontryagin.run.tables import Sketch

HEAD = ("task", "rule", "rises of J", "rejected trials", "end J", "Adam's J (rate, iterations)",
        "iterations to Adam's J")
_WAYS = (("Let the rule set the step of a control problem of yours:",
          "python -c \"import pontryagin; help(pontryagin.ExtendedMSA)\""),)
_COLORS = {"estimate": BLUE, "per-stage": GREEN, "adam": RED}
_LINES: dict[str, dict[str, Any]] = {"estimate": {"linewidth": 4.5, "alpha": 0.45},
                                    "per-stage": {"linewidth": 1.4, "linestyle": (0, (3, 2)), "depth": 1.0}}
"""Where the twins lie on each other both are seen."""
_WORDS = Markup(
    "Full batches. Every rule measures the constant C of Lemma 2 in every trial and sets rho = 2C, the "
    "largest C seen, an old one fading by 0.8 an iteration; <i>per stage</i> splits it over the stages. A "
    "trial that does not lower J enough is maximized again with the C that it has shown. No rate is tuned. "
    "Adam's J is the least that it reached with the best rate of its grid, in the iterations given; numbers "
    "are medians over the seeds, [least, greatest].")


def write_report(folder: Path, results: Mapping[str, TaskResult]) -> tuple[Path, str]:
    """Figures and report.html, beside the run's summary.json; returns its path and the table as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    results = {name: result for name, result in results.items() if result.records}
    sketches = {"certificate": partial(_rules, results)} if results else {}
    sketches |= {f"iterations-{name}": partial(_first_seed, name, result) for name, result in results.items()}
    rows = [row for name, result in results.items() for row in _rows(name, result)]
    blocks: list[Block] = [_WORDS, Cells(HEAD, [list(map(stacked, row)) for row in rows], names=2),
                           *pictures(folder, sketches, titles=True)]
    return write_page(folder, "Steps that certify themselves", summary, blocks, Banner(
        "Interrupted.", "Tasks or seeds are missing."), _headline(results), _WAYS), lines([HEAD, *rows])


def _headline(results: Mapping[str, TaskResult]) -> str:
    """How often J rose, and where tuned Adam's least J was reached."""
    found = {name: verdicts(result)["estimate"] for name, result in results.items()
             if "estimate" in result.records and result.adam}
    if not found:
        return ""
    rises, taken = (sum(each[key] for each in found.values()) for key in ("rises", "iterations"))
    sooner = sum(each["iterations_to_adam"]["median"] is not None for each in found.values())
    return (f"rho = 2C: J rose in {rises:,} of {taken:,} iterations, with no rate tuned; the least J of "
            f"Adam at "
            f"its best rate was reached on {sooner} of {len(found)} tasks.")


def _rows(name: str, result: TaskResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for rule, found in verdicts(result).items():
        reached = found["iterations_to_adam"]
        to_goal = ("-" if reached["median"] is None
                   else f"{reached['median']:g} [{reached['min']}, {reached['max']}]")
        rows.append((TASKS[name].label, LABELS[rule], f"{found['rises']} of {found['iterations']}",
                     f"{100 * found['rejected_share']['median']:.0f} %", _spread(found["objective"]),
                     f"{_spread(found['adam_objective'])} ({result.rate:g}, "
                     f"{found['adam_iterations']['median']:g})",
                     f"{to_goal}, {reached['reached']}/{reached['seeds']} seeds"))
    return rows


def _spread(values: dict[str, float]) -> str:
    spread = f" [{values['min']:.2g}, {values['max']:.2g}]" if values["min"] < values["max"] else ""
    return f"{values['median']:.2g}{spread}"


def _first_seed(name: str, result: TaskResult) -> Sketch:
    return record_figure(result.records["estimate"][0],
                         f"{TASKS[name].label}: {LABELS['estimate']}, first seed")


def _rules(results: Mapping[str, TaskResult]) -> Sketch:
    """A column a task: J above; rho / 2 under rho = 2C, beside the C_k seen, below."""
    sheet = canvas.new_figure(7.2)
    panels = sheet.subplots(2, len(results), squeeze=False)
    for (upper, lower), (name, result) in zip(panels.T, results.items(), strict=True):
        _objectives(upper, result)
        upper.set_title(TASKS[name].label)
        if result.records.get("estimate"):
            _penalty(lower, result)
    panels[0, 0].set_ylabel("J")
    panels[1, 0].set_ylabel("rho / 2 and C (first seed)")
    marks = [canvas.entry("C of an iteration", PINK, "o", markersize=3),
             canvas.entry("after rejections", BLUE, "x")]
    rules = [canvas.entry(LABELS[method], color, **{key: look for key, look in _LINES.get(method, {}).items()
                                                    if key != "depth"}) for method, color in _COLORS.items()]
    canvas.legend_below(sheet, [*rules, *marks], columns=4)
    return Sketch("Steps that certify themselves",
                  "Above: J by iteration; line: median over the seeds, band: from the least to the greatest. "
                  "E-MSA has no rate; Adam's is the best of a grid. Below, for rho = 2C: rho / 2 and the "
                  "constant of Lemma 2 that each iteration has shown; with momentum the rule measures C "
                  "along the step, so single values lie above.", sheet)


def _objectives(axes: Axes, result: TaskResult) -> None:
    """Iterations from 1 on: the axis is logarithmic."""
    runs = {"adam": [np.array(losses) for losses in result.adam]} | {rule: [
        np.array([records[0].objective_before, *(record.objective_after for record in records)])
        for records in each] for rule, each in result.records.items()}
    for method, seeds in runs.items():
        if seeds:
            length = min(map(len, seeds))
            draw_band(axes, np.arange(1, length), [values[1:length] for values in seeds],
                      color=_COLORS[method], label=LABELS[method], **_LINES.get(method, {}))
    canvas.log_y(axes, [np.concatenate([values[1:] for values in seeds]) for seeds in runs.values() if seeds],
                 decades=10)
    canvas.iteration_axis(axes, max(map(len, runs["adam"]), default=1))


def _penalty(axes: Axes, result: TaskResult) -> None:
    records = result.records["estimate"][0]
    k, half, estimate, rejected = (np.array(values) for values in zip(*(
        (record.iteration, record.penalties.rho_state / 2, record.estimate, record.rejected > 0)
        for record in records), strict=True))
    axes.plot(k, canvas.positive(estimate), color=PINK, marker="o", markersize=2.5, linestyle="none")
    axes.plot(k, half, color=BLUE, linewidth=1.3)
    axes.plot(k[rejected], half[rejected], color=BLUE, marker="x", linestyle="none")
    canvas.log_y(axes, [half, estimate], decades=10)
    canvas.iteration_axis(axes, float(k[-1]))
