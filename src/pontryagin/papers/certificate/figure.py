"""J under the rules from the estimate beside tuned Adam, and how C_k, rho and rejections went."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pontryagin.papers.certificate.experiment import LABELS, TaskResult
from pontryagin.papers.certificate.tasks import TASKS
from pontryagin.run.figures.canvas import Sketch, iteration_axis, legend_below, log_y, new_figure

_COLORS = {"estimate": "#0072B2", "per-stage": "#009E73", "adam": "#D55E00"}


def certificate_figure(results: Mapping[str, TaskResult]) -> Sketch:
    """A column a task: J above; rho / 2 under rho = 2C, beside the C_k seen, below."""
    sheet = new_figure(7.2)
    panels = sheet.subplots(2, len(results), squeeze=False)
    for (upper, lower), (name, result) in zip(panels.T, results.items(), strict=True):
        runs = {"adam": [np.array(losses) for losses in result.adam]}
        for rule, each in result.records.items():
            runs[rule] = [np.array([records[0].objective_before,
                                    *(record.objective_after for record in records)])
                          for records in each]
        for method, seeds in runs.items():
            _band(upper, seeds, _COLORS[method])
        log_y(upper, [np.concatenate(seeds) for seeds in runs.values() if seeds], decades=10)
        iteration_axis(upper, max(len(losses) for losses in runs["adam"]) if runs["adam"] else 1.0)
        upper.set_title(TASKS[name].label)
        if result.records.get("estimate"):
            _penalty(lower, result)
    panels[0, 0].set_ylabel("J")
    panels[1, 0].set_ylabel("rho / 2 and C (first seed)")
    legend_below(sheet,
                 [*(Line2D([], [], color=color, label=LABELS[method]) for method, color in _COLORS.items()),
                         Line2D([], [], color="#CC79A7", marker="o", markersize=3, linestyle="none",
                                label="C of an iteration"),
                         Line2D([], [], color="#0072B2", marker="x", linestyle="none",
                                label="after rejections")], columns=4)
    return Sketch("Steps that certify themselves",
                  "Above: J by iteration; line: median over the seeds, band: from the least to the greatest. "
                  "E-MSA has no rate; Adam's is the best of a grid. Below, for rho = 2C: rho / 2 and the "
                  "constant of Lemma 2 that each iteration has shown; with momentum the rule measures C "
                  "along the step, so single values lie above.", sheet)


def _band(axes: Axes, seeds: Sequence[np.ndarray], color: str) -> None:
    """Iterations from 1 on: the axis is logarithmic."""
    if not seeds:
        return
    length = min(len(values) for values in seeds)
    stacked = np.stack([values[1:length] for values in seeds])
    k = np.arange(1, length)
    axes.plot(k, np.median(stacked, axis=0), color=color)
    axes.fill_between(k, stacked.min(axis=0), stacked.max(axis=0), color=color, alpha=0.15, linewidth=0)


def _penalty(axes: Axes, result: TaskResult) -> None:
    records = result.records["estimate"][0]
    k = np.array([record.iteration for record in records])
    half = np.array([record.penalties.rho_state / 2 for record in records])
    estimate = np.array([record.estimate for record in records])
    rejected = np.array([record.rejected > 0 for record in records])
    axes.plot(k, np.where(estimate > 0, estimate, np.nan), color="#CC79A7", marker="o", markersize=2.5,
              linestyle="none")
    axes.plot(k, half, color="#0072B2", linewidth=1.3)
    axes.plot(k[rejected], half[rejected], color="#0072B2", marker="x", linestyle="none")
    log_y(axes, [half, estimate], decades=10)
    iteration_axis(axes, float(k[-1]))
