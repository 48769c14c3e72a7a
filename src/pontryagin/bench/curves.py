"""The picture of `bench optimizers`."""

from pathlib import Path
from typing import Any

import numpy as np

from pontryagin.bench.benchmark import COLUMNS
from pontryagin.run.figures.canvas import handle, legend_below, log_y, new_figure, png, style
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.files import write_bytes
from pontryagin.run.tables import Drawing, read_table


def draw_curves(folder: Path, summary: dict[str, Any]) -> Drawing:
    """Train loss and score against iterations and seconds: the median over seeds."""
    metrics = read_table(folder / "metrics.csv", COLUMNS[:1], COLUMNS[2:])
    methods = in_order(metrics.values("method"))
    with style():
        sheet = new_figure(7.0)
        panels = sheet.subplots(2, 2, sharey="row", sharex="col")
        for row, (column,
                  name) in enumerate((("train_loss", "train loss"), ("score", str(summary["score"])))):
            shown = []
            for method in methods:
                own, look = metrics.where(method=method), style_of(method)
                own = own.take(np.isfinite(own[column]))
                at = np.unique(own["iteration"])
                middle = {name: np.array([np.median(own[name][own["iteration"] == k]) for k in at])
                          for name in (column, "seconds")} | {"iteration": at}
                shown.append(middle[column])
                for axes, effort in zip(panels[row], ("iteration", "seconds"), strict=True):
                    axes.plot(middle[effort], middle[column], color=look.color, linestyle=look.line,
                              linewidth=look.width)
            panels[row, 0].set_ylabel(name)
            if column == "train_loss":
                log_y(panels[row, 0], shown)
        panels[1, 0].set_xlabel("iteration")
        panels[1, 1].set_xlabel("seconds")
        legend_below(sheet, list(map(handle, methods)))
        path = folder / "figures" / "train-loss.png"
        write_bytes(path, png(sheet))
    return Drawing("train-loss", "Train loss and score",
                   f"Medians over seeds. Above: train loss; below: {summary['score']} on "
                   "held-out data. Seconds are of training alone.", path)
