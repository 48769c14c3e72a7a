"""Pictures of a training: losses and test accuracy against epochs and seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pontryagin.run.figures.canvas import legend_below, log_y, name_lines, new_figure
from pontryagin.run.figures.curves import Measure, draw_seeds
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.history import COLUMNS
from pontryagin.run.tables import Sketch, Table, read_table

_ERRORS = (0.9, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001)
_NAMED = 7
"""More methods have their names in a legend, for they would not fit beside a panel."""
_CLOSE = tuple(digit * 10.0**power for power in (-1, -2, -3, -4) for digit in range(9, 0, -1))
"""Ticks for axes on which few of the others lie."""


def losses(path: Path, test_samples: int) -> Sketch | None:
    """Of a metrics.csv; none when nothing has been evaluated after the start.

    test_samples: an error of 0 is drawn as half a sample. Raises ReportError when the table is not what is
    expected.
    """
    metrics, least = read_table(path, COLUMNS[:2], COLUMNS[2:]), 0.5 / test_samples
    evaluated = metrics.take(np.isfinite(metrics["train_loss"]) & (metrics["iteration"] > 0))
    if not len(evaluated):
        return None
    classified = bool(np.isfinite(metrics["test_accuracy"]).any())
    methods = in_order(metrics.values("method"))
    sheet = new_figure(7.4)
    panels = sheet.subplots(2, 2, sharey="row")
    for (upper, lower), effort, name in zip(panels.T, ("epoch", "seconds"), ("epochs", "seconds"),
                                            strict=True):
        shown = [part for method in methods
                 for part in _batches(upper, metrics.where(method=method), method, effort)]
        log_y(upper, shown + _evaluated(upper, evaluated, methods, effort, lambda own: own["train_loss"]))
        upper.set_title(f"Train loss against {name}")
        if classified:
            _percent_axis(lower, np.concatenate(_evaluated(
                lower, evaluated, methods, effort, lambda own: np.maximum(1 - own["test_accuracy"], least))))
        else:
            log_y(lower, _evaluated(lower, evaluated, methods, effort, lambda own: own["test_loss"]))
        lower.set_title(f"Test {'accuracy' if classified else 'loss'} against {name}")
        lower.set_xlabel("epoch" if effort == "epoch" else "seconds of training")
        for axes in (upper, lower):
            axes.set_xlim(0, 1.01 * float(metrics[effort].max()))
    panels[0, 0].set_ylabel("train loss")
    panels[1, 0].set_ylabel("test accuracy" if classified else "test loss")
    if len(methods) > _NAMED:
        legend_below(sheet, methods)
    else:
        for axes in panels[:, 0]:
            name_lines(axes, height=2.7)
    return Sketch("Losses and accuracy" if classified else "Losses", _caption(metrics, classified), sheet)


def _caption(metrics: Table, classified: bool) -> str:
    seeds = len(metrics.values("seed"))
    several = f" Line: median over {seeds} seeds; thin lines: each seed." if seeds > 1 else ""
    accuracy = " Accuracy is drawn by the logarithm of what is missing to 100 %." if classified else ""
    return ("Above: mean loss of training samples (points; of the averages of a method that keeps them), and "
            "the running mean of the batches' losses (pale). Below: the test set. Seconds leave out "
            f"evaluation and writing.{several}{accuracy}")


def _evaluated(axes: Axes, rows: Table, methods: Sequence[str], effort: str,
               measure: Measure) -> list[np.ndarray]:
    return [value for method in methods
            for value in draw_seeds(axes, rows.where(method=method), method, effort, measure, "iteration")]


def _batches(axes: Axes, rows: Table, method: str, effort: str) -> list[np.ndarray]:
    """The losses of batches, smoothed and pale; returns what is past the beginning."""
    shown = []
    for own in rows.take(np.isfinite(rows["batch_loss"])).seeds():
        smooth = _smoothed(own["batch_loss"])
        axes.plot(own[effort], smooth, color=style_of(method).color, linewidth=0.8, alpha=0.35, zorder=2)
        shown.append(smooth[len(smooth) // 20:])
    return shown


def _percent_axis(axes: Axes, errors: np.ndarray) -> None:
    """Accuracies by the logarithm of the errors, the best above."""
    low, high = errors.min() / 1.3, min(1.0, errors.max() * 1.1)
    axes.set_yscale("log")
    axes.set_ylim(high, low)
    ticks, close = ([error for error in marks if low <= error <= high] for marks in (_ERRORS, _CLOSE))
    axes.yaxis.set_major_locator(FixedLocator(ticks if len(ticks) > 2 else close))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * (1 - error):.4g} %"))


def _smoothed(losses: np.ndarray) -> np.ndarray:
    """The running mean over about a twentieth of the run, 20 iterations at most; bias-corrected."""
    memory = 1 - 1 / min(max(len(losses) / 20, 1.5), 20)
    mean, result = 0.0, np.empty(len(losses))
    for number, loss in enumerate(losses):
        mean = memory * mean + (1 - memory) * loss
        result[number] = mean / (1 - memory ** (number + 1))
    return result
