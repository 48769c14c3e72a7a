"""What the report of an image experiment says beside that of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pontryagin.papers.images.paper import FIGURES, OURS, Figure
from pontryagin.papers.images.wall_clock import clock_section
from pontryagin.run.figures.method_style import in_order
from pontryagin.run.history import COLUMNS, percent
from pontryagin.run.reports.page import Block, Cells, Heading
from pontryagin.run.reports.words import NONE, best, given, label, number, spread
from pontryagin.run.tables import read_table

_MEMORY = 0.9
"""Of the running mean of batch losses: about the last ten."""

_DIFFERENCES: tuple[Block, ...] = (
    "The paper's values are read off its plots, so they are good to about one unit of their last digit. What "
    "is the same: the network (two projections, seven residual steps x + 0.5 tanh(conv 3x3 + b) with 32 "
    "channels, one linear layer), 55000 training images, batches of 100, no data augmentation, no "
    "regularizer in the losses shown here. What differs, and should be kept in mind when the numbers are "
    "compared:",
    ("Learning rates of the first-order optimizers, and the penalty rho of the paper's E-MSA, are tuned on a "
     "grid (below). Every learning rate falls linearly to zero over the run, while rho is constant, as in "
     "the paper. The paper states neither grid nor schedule; a better tuned Adam is the fair opponent.",
     "“E-MSA” is this library's optimizer: every layer's affine map is a stage, maximized in closed form "
     "with running moments, momentum and its own step length. “paper's E-MSA” is Algorithm 2 as published: a "
     "stage is tanh of a convolution, both penalties, 10 iterations of L-BFGS a stage; it is run for a "
     "stated number of iterations only, since one costs that of many others.",
     "Inputs are standardized by one mean and one deviation. Initial weights are N(0, 1 / inputs), biases 0. "
     "Max-pooling comes before tanh, which is the same function.",
     "The last 5000 training images are left out (the paper leaves out 5000 as well). Train losses are "
     "measured on training images at the controls reached, for E-MSA at their averages, not as a running "
     "mean over batches.",
     "PyTorch in place of TensorFlow 1, another processor: seconds cannot be compared with the paper's, only "
     "within this page."))


def section(name: str, directory: Path, summary: dict[str, Any]) -> Sequence[Block]:
    """The paper beside ours, the part that all methods have run, and for wall-clock its table and figure."""
    figure = FIGURES[name]
    methods: dict[str, Any] = next(iter(summary["results"].values()), {})
    timed = name == "wall-clock"
    return [*(clock_section(directory, methods) if timed and methods else ()),
            Heading(f"Beside the paper's Figure {figure.number}"),
            *(_seconds(figure) if timed else _beside(figure, methods)), *_DIFFERENCES,
            *_iteration_by_iteration(directory)]


def _beside(figure: Figure, methods: dict[str, Any]) -> list[Block]:
    rows = []
    for method in in_order(methods):
        ours, theirs = methods[method], figure.values.get(OURS.get(method, ""), {})
        rows.append([label(method), given(theirs.get("train_loss")), _share(theirs.get("test_accuracy")),
                     spread(ours["train_loss"]), _share(ours.get("test_accuracy", {}).get("median")),
                     f"{ours['iterations']:,}"])
    order = in_order(methods)
    marked = best({3: [methods[method]["train_loss"]["median"] for method in order],
                   4: [methods[method].get("test_accuracy", {}).get("median") for method in order]},
                  most=(4,))
    head = ["method", "paper: train loss after 10 epochs", "paper: test accuracy", "here: train loss",
            "here: test accuracy", "here: after iterations"]
    first = {method: values["first_accuracy"]
             for method, values in figure.values.items() if "first_accuracy" in values}
    return [Cells(head, rows, best=marked), *([
        f"After its first epoch the paper's E-MSA is at about {percent(first['emsa'])}, its Adam at about "
        f"{percent(first['adam'])}. An epoch is 550 iterations."] if first else [])]


def _seconds(figure: Figure) -> list[Block]:
    adam, emsa = (given(figure.values[method]["train_loss"]) for method in ("adam", "emsa"))
    return [f"In the paper, after 35 seconds on its CPU, Adam is at a train loss of about {adam} and E-MSA "
            f"at about {emsa}: per second its E-MSA loses by far."]


def _iteration_by_iteration(directory: Path) -> list[Block]:
    """Where the paper's E-MSA ends and before: the running mean of batch losses of every method, first
    seed."""
    metrics = read_table(directory / "metrics.csv", COLUMNS[:2], COLUMNS[2:])
    last = int(metrics.where(method="emsa-paper")["iteration"].max(initial=0))
    if not last:
        return []
    places = sorted({max(1, last // 4), max(1, last // 2), last})
    rows = [[label(method), *(number(running_loss(metrics, method, at)) for at in places)]
            for method in in_order(metrics.values("method"))]
    return [Heading("Iteration by iteration"),
            "As far as the paper's E-MSA was run: the running mean of the batches' losses (memory "
            f"{_MEMORY}), first seed, the same batches for every method.",
            Cells(["method", *(f"loss at iteration {at}" for at in places)], rows)]


def running_loss(metrics: Any, method: str, iteration: int) -> float | None:
    """Of the first seed, bias-corrected; None when the method has not come so far."""
    rows = metrics.where(method=method).seeds()[0]
    rows = rows.take(np.isfinite(rows["batch_loss"]) & (rows["iteration"] <= iteration))
    if not len(rows) or rows["iteration"][-1] != iteration or len(rows) != iteration:
        return None
    weights = _MEMORY ** np.arange(len(rows))[::-1]
    return float((weights * rows["batch_loss"]).sum() / weights.sum())


def _share(value: float | None) -> str:
    return NONE if value is None else percent(value)
