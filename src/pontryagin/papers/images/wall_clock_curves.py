"""The picture of `reproduce wall-clock`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pontryagin.run.figures.canvas import handle, legend_below, log_y, new_figure, png, style
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.files import write_bytes
from pontryagin.run.history import COLUMNS
from pontryagin.run.tables import Drawing, read_table


def draw_clock(directory: Path, losses: Sequence[float], accuracies: Sequence[float]) -> Drawing:
    """directory/figures/wall-clock.png from metrics.csv, with these goals."""
    metrics = read_table(directory / "metrics.csv", COLUMNS[:2], COLUMNS[2:])
    methods = in_order(metrics.values("method"))
    with style():
        sheet = new_figure(4.6)
        left, right = sheet.subplots(1, 2)
        shown = []
        for method in methods:
            rows = metrics.where(method=method)
            for seed in rows.values("seed"):
                own = rows.where(seed=seed).sort("iteration")
                own = own.take(np.isfinite(own["train_loss"]) & (own["seconds"] > 0))
                look = style_of(method)
                for axes, value in ((left, own["train_loss"]), (right, 100 * own["test_accuracy"])):
                    axes.plot(own["seconds"], value, color=look.color, linestyle=look.line,
                              linewidth=look.width)
                shown.append(own["train_loss"])
        log_y(left, [values for values in shown if len(values)])
        left.set(xscale="log", xlabel="seconds of training", title="Train loss")
        right.set(xscale="log", xlabel="seconds of training", title="Test accuracy, %", ylim=(90, 100))
        for loss in losses:
            left.axhline(loss, color="#cccccc", linewidth=0.8, zorder=0)
        for share in accuracies:
            right.axhline(100 * share, color="#cccccc", linewidth=0.8, zorder=0)
        legend_below(sheet, list(map(handle, methods)))
        path = directory / "figures" / "wall-clock.png"
        write_bytes(path, png(sheet))
    return Drawing("wall-clock", "Seconds to a goal",
                   "Train loss and test accuracy against seconds of training, a line a "
                   "seed; grey: the goals of the table.", path)
