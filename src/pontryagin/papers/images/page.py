"""What the report of an image experiment says beside that of a training."""

from pathlib import Path
from typing import Any

import numpy as np

from pontryagin.papers.images.paper import FIGURES, OURS, Figure
from pontryagin.papers.images.wall_clock import clock_section
from pontryagin.run.figures.method_style import in_order
from pontryagin.run.history import COLUMNS, percent
from pontryagin.run.reports.text import NONE, label, number, spread, table
from pontryagin.run.tables import read_table

_MEMORY = 0.9

_DIFFERENCES = """<p>The paper's values are read off its plots, so they are good to about one unit of their
last digit. What
is the same: the network (two projections, seven residual steps x + 0.5 tanh(conv 3x3 + b) with 32 channels,
one linear layer), 55000 training images, batches of 100, no data augmentation, no regularizer in the losses
shown here. What differs, and should be kept in mind when the numbers are compared:</p> <ul> <li>Learning
rates of the first-order optimizers, and the penalty rho of the paper's E-MSA, are tuned on a grid (below).
Every learning rate falls linearly to zero over the run, while rho is constant, as in the paper. The paper
states neither grid nor schedule; a better tuned Adam is the fair opponent.</li> <li>“E-MSA” is this library's
optimizer: every layer's affine map is a stage, maximized in closed form with running moments, momentum and
its own step length. “paper's E-MSA” is Algorithm 2 as published: a stage is tanh of a convolution, both
penalties, 10 iterations of L-BFGS a stage; it is run for a stated number of iterations only, since one costs
that of many others.</li> <li>Inputs are standardized by one mean and one deviation. Initial weights are N(0,
1 / inputs), biases 0. Max-pooling comes before tanh, which is the same function.</li> <li>The last 5000
training images are left out (the paper leaves out 5000 as well). Train losses are measured on training images
at the controls reached, for E-MSA at their averages, not as a running mean over batches.</li> <li>PyTorch in
place of TensorFlow 1, another processor: seconds cannot be compared with the paper's, only within this
page.</li> </ul>"""


def section(name: str, directory: Path, summary: dict[str, Any]) -> str:
    """HTML: the paper beside ours, the part that all methods have run, and for wall-clock its table and
    figure."""
    figure = FIGURES[name]
    methods: dict[str, Any] = next(iter(summary["results"].values()), {})
    parts = [clock_section(directory, summary)] if name == "wall-clock" and methods else []
    parts += [f"<h2>Beside the paper's Figure {figure.number}</h2>",
              _seconds(figure) if name == "wall-clock" else _beside(figure, methods), _DIFFERENCES]
    parts.append(_iteration_by_iteration(directory))
    return "\n".join(part for part in parts if part)


def _beside(figure: Figure, methods: dict[str, Any]) -> str:
    rows = []
    for method in in_order(list(methods)):
        ours, theirs = methods[method], figure.values.get(OURS.get(method, ""), {})
        rows.append([label(method), _number(theirs, "train_loss"), _share(theirs, "test_accuracy"),
                     spread(ours["train_loss"]), percent(ours["test_accuracy"]["median"])
                     if "test_accuracy" in ours else NONE, f"{ours['iterations']:,}"])
    head = ["method", "paper: train loss after 10 epochs", "paper: test accuracy", "here: train loss",
            "here: test accuracy",
            "here: after iterations"]
    first = {method: values["first_accuracy"]
             for method, values in figure.values.items() if "first_accuracy" in values}
    after = ("" if not first else "<p>After its first epoch the paper's E-MSA is at about "
             f"{percent(first['emsa'])}, its Adam at about {percent(first['adam'])}. An epoch is 550 "
             "iterations.</p>")
    return table(head, rows) + after


def _seconds(figure: Figure) -> str:
    values = figure.values
    adam, emsa = (number(values[method]["train_loss"]) for method in ("adam", "emsa"))
    return (f"<p>In the paper, after 35 seconds on its CPU, Adam is at a train loss of about {adam} and "
            f"E-MSA at about {emsa}: per second its E-MSA loses by far.</p>")


def _iteration_by_iteration(directory: Path) -> str:
    """Where the paper's E-MSA ends and before: the running mean of batch losses of every method, first
    seed."""
    metrics = read_table(directory / "metrics.csv", COLUMNS[:2], COLUMNS[2:])
    last = int(metrics.where(method="emsa-paper")["iteration"].max()) if "emsa-paper" in metrics.values("method") else 0
    if not last:
        return ""
    places = sorted({max(1, last // 4), max(1, last // 2), last})
    rows = []
    for method in in_order(metrics.values("method")):
        found = [running_loss(metrics, method, at) for at in places]
        rows.append([label(method), *(NONE if loss is None else number(loss) for loss in found)])
    return ("<h2>Iteration by iteration</h2><p>As far as the paper's E-MSA was run: the running mean of the "
            f"batches' losses (memory {_MEMORY}), first seed, the same batches for every method.</p>"
            + table(["method", *(f"loss at iteration {at}" for at in places)], rows))


def running_loss(metrics: Any, method: str, iteration: int) -> float | None:
    """Of the first seed, bias-corrected; None when the method has not come so far."""
    rows = metrics.where(method=method)
    rows = rows.where(seed=rows.values("seed")[0]).sort("iteration")
    rows = rows.take(np.isfinite(rows["batch_loss"]) & (rows["iteration"] <= iteration))
    if not len(rows) or rows["iteration"][-1] != iteration or len(rows) != iteration:
        return None
    weights = _MEMORY ** np.arange(len(rows))[::-1]
    return float((weights * rows["batch_loss"]).sum() / weights.sum())


def _number(values: dict[str, float], key: str) -> str:
    return number(values[key]) if key in values else NONE


def _share(values: dict[str, float], key: str) -> str:
    return percent(values[key]) if key in values else NONE
