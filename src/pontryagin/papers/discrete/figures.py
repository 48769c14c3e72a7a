"""Pictures of training over discrete weights: test error beside the printed one, flips and zeros of every
stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pontryagin.run.figures.canvas import (
    INK,
    Sketch,
    handle,
    legend_below,
    log_x,
    log_y,
    new_figure,
    png,
    style,
)
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.files import write_bytes
from pontryagin.run.tables import Drawing, Table, read_table

_METRICS = (("method",), ("seed", "epoch", "test_accuracy"))


def draw_discrete(directory: Path, summary: dict[str, Any]) -> list[Drawing]:
    """directory/figures/*.png, from metrics.csv, weights.csv and the printed values in the summary.

    Raises ReportError when a table is not what is expected.
    """
    metrics = read_table(directory / "metrics.csv", *_METRICS)
    weights = read_table(directory / "weights.csv", ("method", "stage"),
                         ("seed", "epoch", "flips", "nonzero"), optional=True)
    drawings = []
    with style():
        sketches = {"error": _error(metrics, summary), "flips": _flips(weights),
                    "nonzero": _nonzero(weights, summary)}
        for name, sketch in sketches.items():
            if sketch is not None:
                path = directory / "figures" / f"{name}.png"
                write_bytes(path, png(sketch.figure))
                drawings.append(Drawing(name, sketch.title, sketch.caption, path))
    return drawings


def _error(metrics: Table, summary: dict[str, Any]) -> Sketch | None:
    known = metrics.take(np.isfinite(metrics["test_accuracy"]) & (metrics["epoch"] > 0))
    if not len(known):
        return None
    sheet = new_figure(5.6)
    axes = sheet.subplots()
    methods, shown = in_order(known.values("method")), []
    for method in methods:
        shown += _lines(axes, known.where(method=method), method,
                        lambda own: 100 * (1 - own["test_accuracy"]))
    handles = list(map(handle, methods))
    printed = _printed(summary, "test_error", known["epoch"].max())
    if printed.size:
        axes.plot(*printed, color=INK, marker="D", markersize=5, linestyle=(0, (1, 2)), linewidth=1, zorder=5)
        handles.append(Line2D([], [], color=INK, marker="D", markersize=5, linestyle=(0, (1, 2)),
                              label="Li and Hao, printed"))
        shown.append(printed[1])
    log_y(axes, shown, margin=1.15)
    _epochs(axes, known["epoch"].max())
    axes.set_ylabel("test error, %")
    legend_below(sheet, handles)
    return Sketch("Test error", "After every epoch, of the weights as they are (for Adam: real ones). Line: "
                                "median over seeds; "
                  "thin lines: each seed. Diamonds: what Li and Hao's released notebooks printed"
                  + ("." if printed.size else ", shown for runs on MNIST of such length."), sheet)


def _flips(weights: Table) -> Sketch | None:
    if not len(weights):
        return None
    stages = sorted(weights.values("stage"))
    sheet, panels = _panels(len(stages))
    methods = in_order(weights.values("method"))
    for axes, stage in zip(panels, stages, strict=True):
        shown = []
        for method in methods:
            rows = weights.where(method=method, stage=stage)
            shown += _lines(axes, rows, method, lambda own: _smoothed(own["flips"]), marker=None)
        log_y(axes, shown)
        axes.set_xlim(left=0)
        axes.set_title(stage)
    _label(panels, "share of flips per iteration")
    legend_below(sheet, list(map(handle, methods)))
    return Sketch("Flips of every stage",
                  "The share of a stage's weights that one iteration changes, a running mean over ten "
                  "recorded iterations. Where a line ends or falls below the picture, nothing flipped.",
                  sheet)


def _nonzero(weights: Table, summary: dict[str, Any]) -> Sketch | None:
    if not len(weights) or (weights["nonzero"] == 1).all():
        return None
    stages = sorted(weights.values("stage"))
    sheet, panels = _panels(len(stages))
    methods = in_order(weights.values("method"))
    for axes, stage in zip(panels, stages, strict=True):
        for method in methods:
            _lines(axes, weights.where(method=method, stage=stage), method, lambda own: 100 * own["nonzero"],
                   marker=None)
        axes.set_ylim(0, 104)
        axes.set_xlim(left=0)
        axes.set_title(stage)
    _label(panels, "weights that are not 0, %")
    legend_below(sheet, list(map(handle, methods)))
    return Sketch("Non-zero weights of every stage",
                  "The share of a stage's weights that are not 0. Li and Hao's printed "
                  f"shares, over all stages: {_told(summary)}.", sheet)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    rows = -(-count // 2)
    sheet = new_figure(1.0 + 2.6 * rows)
    panels = list(sheet.subplots(rows, 2, squeeze=False, sharex=True).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return sheet, panels[:count]


def _label(panels: Sequence[Axes], text: str) -> None:
    for axes in panels[::2]:
        axes.set_ylabel(text, fontsize=8)
    for axes in panels[-2:]:
        axes.set_xlabel("epoch")


def _epochs(axes: Axes, last: float) -> None:
    if last > 20:
        log_x(axes, 1, last)
    else:
        axes.set_xlim(0.5, max(last, 1) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")


def _printed(summary: dict[str, Any], name: str, last: float) -> np.ndarray:
    """(2, point) epochs and values; empty for other data than MNIST."""
    if summary.get("task", {}).get("data") != "mnist":
        return np.empty(0)
    found = [(float(epoch), value)
             for epoch, value in summary.get("printed", {}).get(name, {}).items() if float(epoch) <= last]
    return np.array(sorted(found)).T


def _told(summary: dict[str, Any]) -> str:
    shares = summary.get("printed", {}).get("nonzero", {})
    return ", ".join(f"{100 * share:g} % after epoch {epoch}" for epoch, share in shares.items())


def _lines(axes: Axes, rows: Table, method: str, measure: Any, marker: str | None = "o") -> list[np.ndarray]:
    """Every seed, and their median where all seeds have the same epochs."""
    look, seeds = style_of(method), []
    for seed in rows.values("seed"):
        own = rows.where(seed=seed).sort("epoch")
        seeds.append((own["epoch"], measure(own)))
    alone = len(seeds) == 1
    for across, value in seeds:
        axes.plot(across, value, color=look.color, linestyle=look.line,
                  linewidth=look.width if alone else 0.6, alpha=1.0 if alone else 0.5,
                  marker=marker if alone else None, markersize=3, zorder=3)
    if not alone and all(np.array_equal(across, seeds[0][0]) for across, _ in seeds):
        axes.plot(seeds[0][0], np.median([value for _, value in seeds], axis=0), color=look.color,
                  linestyle=look.line, linewidth=look.width, marker=marker, markersize=3, zorder=4)
    return [value for _, value in seeds]


def _smoothed(values: np.ndarray, length: int = 10) -> np.ndarray:
    """The mean of the last `length` values; nan where all are 0."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    first = np.maximum(np.arange(len(values)) + 1 - length, 0)
    mean = (total[1:] - total[first]) / (np.arange(len(values)) + 1 - first)
    return np.where(mean > 1e-12, mean, np.nan)
