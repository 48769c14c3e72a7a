"""Loss against iterations, evaluations and seconds, with a band over seeds: the paper's Figure 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pontryagin.papers.sine.tables import SineTables
from pontryagin.papers.sine.task import figure_title
from pontryagin.run.figures import canvas
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.tables import Sketch, Table

FLOOR = 1e-9
"""Losses below are not shown."""
_CIRCLE: dict[str, Any] = {"marker": "o", "markersize": 5.5, "markerfacecolor": "white",
                           "markeredgewidth": 1.5, "linestyle": "none"}


@dataclass(frozen=True)
class Curve:
    """One seed: loss y at x > 0, both finite and positive. diverged: what follows is not finite."""

    x: np.ndarray
    y: np.ndarray
    diverged: bool


@dataclass(frozen=True)
class Band:
    """Median, least and greatest loss over the seeds, at the x that all seeds have."""

    x: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curves(metrics: Table, method: str, x: str, y: str) -> list[Curve]:
    """A curve for every seed that has one; cut where the loss is no longer finite."""
    found = []
    for rows in metrics.where(method=method).seeds():
        across, loss = rows[x], rows[y]
        measured = np.isfinite(across) & (across > 0) & ~np.isnan(loss)
        across, loss = across[measured], loss[measured]
        broken = np.flatnonzero(~np.isfinite(loss))
        length = int(broken[0]) if broken.size else len(loss)
        if length:
            found.append(Curve(across[:length], np.maximum(loss[:length], 1e-300), bool(broken.size)))
    return found


def band(seeds: Sequence[Curve], points: int = 600) -> Band | None:
    """Over the x that all seeds cover, interpolated in log y; at the seeds' own x where these are the
    same."""
    first, last = max(curve.x[0] for curve in seeds), min(curve.x[-1] for curve in seeds)
    if last < first:
        return None
    own = [curve.x[(curve.x >= first) & (curve.x <= last)] for curve in seeds]
    same = all(np.array_equal(own[0], other) for other in own)
    grid = _thin(own[0], points) if same else np.geomspace(first, last, points)
    logs = np.stack([np.interp(np.log(grid), np.log(curve.x), np.log(curve.y)) for curve in seeds])
    return Band(grid, *np.exp([np.median(logs, axis=0), logs.min(axis=0), logs.max(axis=0)]))


def loss_figure(run: SineTables, figure: str) -> Sketch | None:
    """Train loss in three measures of effort, test loss in one."""
    metrics = run.metrics.where(figure=figure)
    trained = {method: found for method in in_order(metrics.values("method"))
               if (found := curves(metrics, method, "iteration", "train_loss"))}
    if not trained:
        return None
    marks = {method: mark for method,
             mark in run.summary["paper"].get(figure, {}).items() if method in trained}
    inside, clipped = _inside(metrics, [float(mark["loss"]) for mark in marks.values()])
    ends = [float(curve.x[-1]) for seeds in trained.values() for curve in seeds]
    sheet = canvas.new_figure(8.2)
    panels = sheet.subplot_mosaic([["iteration"] * 3, ["evaluations", "seconds", "test"]],
                                  height_ratios=[1.45, 1])
    for name, axes in panels.items():
        effort, loss = ("iteration", "test_loss") if name == "test" else (name, "train_loss")
        end = _draw_losses(axes, metrics, list(trained), effort, loss, float(inside.max()))
        canvas.log_y(axes, [inside])
        axes.set_title(f"{loss.replace('_', ' ').capitalize()} against "
                       f"{effort.replace('iteration', 'iterations')}")
        if effort == "iteration":
            canvas.iteration_axis(axes, 1.08 * max(ends))
        else:
            canvas.log_x(axes, _smallest(metrics[effort], end), 1.08 * end)
            axes.set_xlabel("evaluations (propagations)" if effort == "evaluations" else effort)
    longer = mark_paper(panels["iteration"], marks, max(ends))
    for name in ("iteration", "evaluations"):
        panels[name].set_ylabel("mean squared error")
    canvas.name_lines(panels["iteration"], height=3.9)
    if marks:
        known = {"end value in the paper": _CIRCLE} if any(
            mark["iteration"] not in longer for mark in marks.values()) else {}
        if longer:
            known[f"end value in the paper, after {' or '.join(map(str, longer))} iterations"] = (
                _CIRCLE | {"marker": ">"})
        canvas.legend_below(sheet, [canvas.entry(each, **look) for each, look in known.items()])
    diverged = any(curve.diverged for seeds in trained.values() for curve in seeds)
    return Sketch(figure_title(figure),
                  _caption(len(metrics.values("seed")), bool(marks), diverged, clipped),
                  sheet)


def _draw_losses(axes: Axes, metrics: Table, methods: Sequence[str], x: str, y: str, top: float) -> float:
    """Every method's median and band; seeds that go on longer than others as thin lines; crosses, no higher
    than top, where a seed diverged. Returns the greatest x."""
    greatest = 1.0
    for depth, method in enumerate(reversed(methods)):
        seeds = curves(metrics, method, x, y)
        if seeds:
            _draw_method(axes, method, seeds, depth, top)
            greatest = max(greatest, *(float(curve.x[-1]) for curve in seeds))
    return greatest


def _draw_method(axes: Axes, method: str, seeds: list[Curve], depth: int, top: float) -> None:
    look, common = style_of(method).look, band(seeds)
    color = look["color"]
    if common is not None:
        axes.plot(common.x, common.median, zorder=3 + depth / 100, marker="." if len(common.x) == 1 else None,
                  label=style_of(method).label, **look)
        if len(seeds) > 1:
            axes.fill_between(common.x, common.low, common.high, color=color, alpha=0.15, linewidth=0,
                              zorder=2)
    for curve in seeds:
        beyond = curve.x >= (common.x[-1] if common is not None else 0)
        if beyond.sum() > 1:
            axes.plot(curve.x[beyond], curve.y[beyond], color=color, linewidth=0.7, alpha=0.7, zorder=2.5)
        if curve.diverged:
            axes.plot(curve.x[-1:], np.minimum(curve.y[-1:], top), color=color, marker="x", markersize=6,
                      markeredgewidth=1.6, zorder=5)


def mark_paper(axes: Axes, marks: dict[str, dict[str, float]], last: float) -> list[int]:
    """The paper's end values: hollow, in the method's color, and named once. Those after more iterations than
    the last here stand at the edge, as triangles; returns after how many."""
    named: dict[float, float] = {}
    for method, mark in marks.items():
        at = min(float(mark["iteration"]), last)
        look = _CIRCLE | ({"marker": ">"} if at < mark["iteration"] else {})
        axes.plot([at], [mark["loss"]], color=style_of(method).color, clip_on=False, zorder=6, **look)
        named[at] = max(named.get(at, 0.0), float(mark["loss"]))
    for at, top in named.items():
        axes.annotate("paper", (at, top), xytext=(-6, 4), textcoords="offset points", ha="right",
                      va="bottom", fontsize=8, color=canvas.INK, zorder=7)
    return sorted({int(mark["iteration"]) for mark in marks.values() if mark["iteration"] > last})


def _smallest(values: np.ndarray, fallback: float) -> float:
    positive = values[np.isfinite(values) & (values > 0)]
    return float(positive.min()) if positive.size else fallback


def _inside(metrics: Table, marks: Sequence[float]) -> tuple[np.ndarray, bool]:
    """The losses that all panels show, from FLOOR to ten times the greatest one before training, and whether
    some are left out."""
    losses = np.concatenate([metrics["train_loss"], metrics["test_loss"], np.array(marks, dtype=float)])
    losses = losses[np.isfinite(losses)]
    start = metrics.where(iteration=0)["train_loss"]
    start = start[np.isfinite(start) & (start > 0)]
    top = max(10 * float(start.max()) if start.size else np.inf, FLOOR)
    inside = losses[(losses >= FLOOR) & (losses <= top)]
    return (inside if inside.size else np.array([FLOOR, 1.0])), inside.size < losses.size


def _caption(seeds: int, marked: bool, diverged: bool, clipped: bool) -> str:
    told = {
        "Mean squared error on logarithmic axes. One evaluation is one propagation through all stages; "
        "seconds are process time, the evaluation of the losses shown left out.": True,
        f"Line: median over the {seeds} seeds; band: from the least to the greatest; thin line: single "
        "seeds, where others had already stopped.": seeds > 1,
        "Hollow marks: where the paper's figure ends, read off its plot.": marked,
        "Crosses: from there on the loss is not finite.": diverged,
        f"Losses below {canvas.plain(FLOOR)} or more than ten times the initial one are outside the "
        "frame.": clipped}
    return " ".join(sentence for sentence, holds in told.items() if holds)


def _thin(x: np.ndarray, points: int) -> np.ndarray:
    """At most about `points` of x, evenly on a logarithmic axis; ends included."""
    if len(x) <= points:
        return x
    return x[np.unique(np.searchsorted(x, np.geomspace(x[0], x[-1], points)).clip(0, len(x) - 1))]
