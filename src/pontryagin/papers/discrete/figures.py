"""Pictures of training over discrete weights: test error beside the printed one, flips and zeros of every
stage."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pontryagin.run.figures import canvas
from pontryagin.run.figures.curves import Measure, draw_seeds
from pontryagin.run.figures.method_style import in_order
from pontryagin.run.tables import Sketch, Table, read_table

_METRICS = (("method",), ("seed", "epoch", "test_accuracy"))
_WEIGHTS = (("method", "stage"), ("seed", "epoch", "flips", "density"))
_PRINTED: dict[str, Any] = {"marker": "D", "markersize": 5, "linestyle": (0, (1, 2))}


def sketches(directory: Path, summary: dict[str, Any]) -> dict[str, Callable[[], Sketch | None]]:
    """From metrics.csv, weights.csv and the printed values in the summary.

    Raises ReportError when a table is not what is expected.
    """
    metrics = read_table(directory / "metrics.csv", *_METRICS)
    weights = read_table(directory / "weights.csv", *_WEIGHTS, optional=True)
    return {"error": partial(_error, metrics, summary), "flips": partial(_flips, weights),
            "density": partial(_density, weights, summary)}


def _error(metrics: Table, summary: dict[str, Any]) -> Sketch | None:
    known = metrics.take(np.isfinite(metrics["test_accuracy"]) & (metrics["epoch"] > 0))
    if not len(known):
        return None
    sheet = canvas.new_figure(5.6)
    axes = sheet.subplots()
    methods, last = in_order(known.values("method")), float(known["epoch"].max())
    shown = [value for method in methods for value in draw_seeds(
        axes, known.where(method=method), method, "epoch", lambda own: 100 * (1 - own["test_accuracy"]))]
    entries: list[Any] = list(methods)
    printed = _printed(summary, "test_error", last)
    if printed.size:
        axes.plot(*printed, color=canvas.INK, linewidth=1, zorder=5, **_PRINTED)
        entries.append(canvas.entry("Li and Hao, printed", canvas.INK, **_PRINTED))
        shown.append(printed[1])
    canvas.log_y(axes, shown, margin=1.15)
    canvas.iteration_axis(axes, last, "epoch")
    axes.set_ylabel("test error, %")
    canvas.legend_below(sheet, entries)
    return Sketch("Test error", (
        "After every epoch, of the weights as they are (for Adam: real ones). Line: median over seeds; thin "
        "lines: each seed. Diamonds: what Li and Hao's released notebooks printed"
        + ("." if printed.size else ", shown for runs on MNIST of such length.")), sheet)


def _flips(weights: Table) -> Sketch | None:
    return _by_stage("Flips of every stage", (
        "The share of a stage's weights that one iteration changes, a running mean over ten recorded "
        "iterations. Where a line ends or falls below the picture, nothing flipped."), weights,
                     "share of flips per iteration",
        lambda own: _smoothed(own["flips"]), canvas.log_y)


def _density(weights: Table, summary: dict[str, Any]) -> Sketch | None:
    if (weights["density"] == 1).all():
        return None
    shares = summary.get("printed", {}).get("density", {})
    told = ", ".join(f"{100 * share:g} % after epoch {epoch}" for epoch, share in shares.items())
    return _by_stage("Non-zero weights of every stage", (
        "The share of a stage's weights that are not 0. Li and Hao's printed shares, over all stages: "
        f"{told}."),
        weights, "weights that are not 0, %", lambda own: 100 * own["density"], lambda axes,
                     _: axes.set_ylim(0, 104))


def _by_stage(title: str, caption: str, weights: Table, label: str, measure: Measure,
              scale: Callable[[Axes, list[np.ndarray]], Any]) -> Sketch | None:
    """A panel a stage, every method's curves in it."""
    stages, methods = sorted(weights.values("stage")), in_order(weights.values("method"))
    if not stages:
        return None
    rows = -(-len(stages) // 2)
    sheet = canvas.new_figure(1.0 + 2.6 * rows)
    panels = list(sheet.subplots(rows, 2, squeeze=False, sharex=True).flat)
    for axes in panels[len(stages):]:
        axes.set_visible(False)
    panels = panels[:len(stages)]
    for axes, stage in zip(panels, stages, strict=True):
        scale(axes, [value for method in methods for value in draw_seeds(
            axes, weights.where(method=method, stage=stage), method, "epoch", measure, marker=None)])
        axes.set_xlim(left=0)
        axes.set_title(stage)
    for axes in panels[::2]:
        axes.set_ylabel(label, fontsize=8)
    for axes in panels[-2:]:
        axes.set_xlabel("epoch")
    canvas.legend_below(sheet, methods)
    return Sketch(title, caption, sheet)


def _printed(summary: dict[str, Any], name: str, last: float) -> np.ndarray:
    """(2, point) epochs and values; empty for other data than MNIST."""
    if summary.get("task", {}).get("data") != "mnist":
        return np.empty(0)
    found = [(float(epoch), value)
             for epoch, value in summary.get("printed", {}).get(name, {}).items() if float(epoch) <= last]
    return np.array(sorted(found)).T


def _smoothed(values: np.ndarray, length: int = 10) -> np.ndarray:
    """The mean of the last `length` values; nan where all are 0."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    first = np.maximum(np.arange(len(values)) + 1 - length, 0)
    mean = (total[1:] - total[first]) / (np.arange(len(values)) + 1 - first)
    return np.where(mean > 1e-12, mean, np.nan)
