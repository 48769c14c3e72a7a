"""Pictures of a training: losses and test accuracy against epochs and seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pontryagin.run.figures.canvas import handle, legend_below, log_y, new_figure, png, style
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.files import write_bytes
from pontryagin.run.history import COLUMNS
from pontryagin.run.tables import Drawing, Table, read_table

_ERRORS = (0.9, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001)
_CLOSE = tuple(digit * 10.0**power for power in (-1, -2, -3, -4) for digit in range(9, 0, -1))
"""Ticks for axes on which few of the others lie."""


def draw_training(directory: Path, test_samples: int) -> list[Drawing]:
    """directory/figures/training.png from metrics.csv; none when nothing has been evaluated after the start.

    test_samples: an error of 0 is drawn as half a sample. Raises ReportError when the table is not what is
    expected.
    """
    metrics = read_table(directory / "metrics.csv", COLUMNS[:2], COLUMNS[2:])
    methods = in_order(metrics.values("method"))
    if not (np.isfinite(metrics["train_loss"]) & (metrics["iteration"] > 0)).any():
        return []
    classified = bool(np.isfinite(metrics["test_accuracy"]).any())
    with style():
        sheet = new_figure(7.4)
        panels = sheet.subplots(2, 2, sharey="row")
        for column, effort in enumerate(("epoch", "seconds")):
            _losses(panels[0, column], metrics, methods, effort)
            if classified:
                _accuracies(panels[1, column], metrics, methods, effort, 0.5 / test_samples)
            else:
                _test_losses(panels[1, column], metrics, methods, effort)
            panels[1, column].set_xlabel("epoch" if effort == "epoch" else "seconds of training")
        panels[0, 0].set_ylabel("train loss")
        panels[1, 0].set_ylabel("test accuracy" if classified else "test loss")
        legend_below(sheet, list(map(handle, methods)))
        path = directory / "figures" / "training.png"
        write_bytes(path, png(sheet))
    return [Drawing("training", "Losses and accuracy" if classified else "Losses",
                    _caption(metrics, classified), path)]


def _caption(metrics: Table, classified: bool) -> str:
    seeds = len(metrics.values("seed"))
    several = f" Line: median over {seeds} seeds; thin lines: each seed." if seeds > 1 else ""
    accuracy = " Accuracy is drawn by the logarithm of what is missing to 100 %." if classified else ""
    return ("Above: mean loss of training samples (points; of the averages of a method that keeps them), and "
            "the running mean of the batches' losses (pale). Below: the test set. Seconds leave out "
            f"evaluation and writing.{several}{accuracy}")


def _losses(axes: Axes, metrics: Table, methods: Sequence[str], effort: str) -> None:
    shown = []
    for method in methods:
        rows = metrics.where(method=method)
        for seed in rows.values("seed"):
            own = rows.where(seed=seed).sort("iteration")
            known = own.take(np.isfinite(own["batch_loss"]))
            if len(known):
                smooth = _smoothed(known["batch_loss"])
                axes.plot(known[effort], smooth, color=style_of(method).color, linewidth=0.8, alpha=0.35,
                          zorder=2)
                shown.append(smooth[len(smooth) // 20:])
        shown += _lines(axes, rows, method, effort, lambda own: own["train_loss"])
    log_y(axes, shown)
    axes.set_title(f"Train loss against {effort}s".replace("secondss", "seconds"))
    axes.set_xlim(left=0)


def _test_losses(axes: Axes, metrics: Table, methods: Sequence[str], effort: str) -> None:
    shown = []
    for method in methods:
        shown += _lines(axes, metrics.where(method=method), method, effort, lambda own: own["test_loss"])
    log_y(axes, shown)
    axes.set_title(f"Test loss against {effort}s".replace("secondss", "seconds"))
    axes.set_xlim(left=0)


def _accuracies(axes: Axes, metrics: Table, methods: Sequence[str], effort: str, least: float) -> None:
    shown = []
    for method in methods:
        shown += _lines(axes, metrics.where(method=method), method, effort,
                        lambda own: np.maximum(1 - own["test_accuracy"], least))
    flat = np.concatenate(shown)
    axes.set_yscale("log")
    axes.set_ylim(min(1.0, flat.max() * 1.1), flat.min() / 1.3)
    low, high = flat.min() / 1.3, min(1.0, flat.max() * 1.1)
    ticks, close = ([error for error in errors if low <= error <= high] for errors in (_ERRORS, _CLOSE))
    axes.yaxis.set_major_locator(FixedLocator(ticks if len(ticks) > 2 else close))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * (1 - error):.4g} %"))
    axes.set_title(f"Test accuracy against {effort}s".replace("secondss", "seconds"))
    axes.set_xlim(left=0)


def _lines(axes: Axes, rows: Table, method: str, effort: str, measure: Any) -> list[np.ndarray]:
    """Every seed's evaluated points after the start, and their median where all seeds have the same
    iterations."""
    look, seeds = style_of(method), []
    for seed in rows.values("seed"):
        own = rows.where(seed=seed).sort("iteration")
        own = own.take(np.isfinite(own["train_loss"]) & (own["iteration"] > 0))
        if len(own):
            seeds.append((own["iteration"], own[effort], measure(own)))
    alone = len(seeds) == 1
    for _, across, value in seeds:
        axes.plot(across, value, color=look.color, linestyle=look.line, zorder=3,
                  linewidth=look.width if alone else 0.6, alpha=1.0 if alone else 0.5,
                  marker="o" if alone else None, markersize=3)
    shared = min((len(own[0]) for own in seeds), default=0)
    if not alone and shared and all(np.array_equal(own[0][:shared], seeds[0][0][:shared]) for own in seeds):
        middle = [np.median([own[part][:shared] for own in seeds], axis=0) for part in (1, 2)]
        axes.plot(*middle, color=look.color, linestyle=look.line, linewidth=look.width, marker="o",
                  markersize=3, zorder=4)
    return [value for _, _, value in seeds]


def _smoothed(losses: np.ndarray) -> np.ndarray:
    """The running mean over about a twentieth of the run, 20 iterations at most; bias-corrected."""
    memory = 1 - 1 / min(max(len(losses) / 20, 1.5), 20)
    mean, result = 0.0, np.empty(len(losses))
    for number, loss in enumerate(losses):
        mean = memory * mean + (1 - memory) * loss
        result[number] = mean / (1 - memory ** (number + 1))
    return result
