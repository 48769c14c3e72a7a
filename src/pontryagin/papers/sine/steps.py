"""What the iterations of the control methods promised and did: decrease of J, penalty rho, divergence of
basic MSA."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pontryagin.papers.sine.states import PREFERRED
from pontryagin.papers.sine.tables import SineTables, first_seed
from pontryagin.papers.sine.task import figure_title
from pontryagin.run.figures import canvas
from pontryagin.run.figures.method_style import BLUE, PINK, RED, style_of
from pontryagin.run.tables import Sketch, Table

_SUMS: dict[str, dict[str, Any]] = {
    "gain": {"color": BLUE, "linewidth": 1.7, "label": "gain: predicted decrease of J"},
    "state_error": {"color": RED, "linewidth": 1.7, "linestyle": (0, (5, 1.5)), "label": "state error"},
    "costate_error": {"color": PINK, "linewidth": 1.7, "linestyle": (0, (1, 1)), "label": "costate error"},
}
"""The three sums of Lemma 2."""
_DECADES = 14
_UNIT, _RHO_UNITS = "J / state²", {"emsa": "J / output²", "emsa-secant": "step length⁻¹"}
"""Of what rho multiplies."""


def decrease(run: SineTables) -> Sketch | None:
    """Predicted against achieved decrease of J."""
    steps = {figure: {method: pair for method in ("emsa-paper", "emsa") if len(
        (pair := achieved_steps(run.metrics.where(figure=figure, method=method)))[0])}
        for figure in run.metrics.values("figure")}
    steps = {figure: found for figure,
             found in steps.items() if any((fell > 0).any() for _, fell in found.values())}
    if not steps:
        return None
    sheet = canvas.new_figure(5.5 if len(steps) > 1 else 6.5)
    panels = sheet.subplots(1, len(steps), squeeze=False)[0]
    panels[0].set_ylabel("achieved decrease of J")
    for axes, (figure, found) in zip(panels, steps.items(), strict=True):
        _scatter(axes, found)
        axes.set_title(figure_title(figure))
    missed = {f"{style_of(method).label} in ({figure}) {{}} of {len(fell)}": int((fell <= 0).sum())
              for figure, found in steps.items() for method, (_, fell) in found.items()}
    dots = [canvas.entry(style_of(method).label, style_of(method).color, "o", markersize=5)
            for method in ("emsa-paper", "emsa") if any(method in found for found in steps.values())]
    exact = canvas.entry("achieved = predicted", canvas.INK, linewidth=0.9)
    strokes = [canvas.entry("J did not fall", marker="|", markersize=7)] if any(missed.values()) else []
    canvas.legend_below(sheet, [*dots, exact, *strokes])
    counts = "; ".join(text.format(count) for text, count in missed.items())
    return Sketch("Predicted against achieved decrease", (
        "A dot is an accepted step of any seed: the decrease of J that it achieved over the one that the "
        "Hamiltonian gains promised (their sum over the stages, the optimality gap). On the line the "
        "prediction was exact; the distance below it is the price of the feasibility errors (Lemma 2 of the "
        f"paper). Steps after which J was not lower, strokes at the lower edge: {counts}."), sheet)


def rho(run: SineTables) -> Sketch | None:
    """The penalty, with the iterations in which trials were rejected."""
    methods = [method for method in PREFERRED if np.isfinite(run.metrics.where(method=method)["rho"]).any()]
    figures = {figure: found for figure in run.metrics.values("figure") if any(map(len, (found := {
        method: first_seed(run.metrics, figure, method) for method in methods}).values()))}
    if not figures:
        return None
    sheet = canvas.new_figure(0.9 + 1.75 * len(methods))
    panels = sheet.subplots(len(methods), len(figures), squeeze=False, sharex="col")
    for column, (figure, found) in zip(panels.T, figures.items(), strict=True):
        last = max(_draw_rho(axes, found[method], method)
                   for axes, method in zip(column, methods, strict=True))
        for axes, method in zip(column, methods, strict=True):
            canvas.log_y(axes, [found[method]["rho"]], decades=300)
            canvas.iteration_axis(axes, last, label="iteration" if axes is column[-1] else "")
            axes.set_title(f"({figure}) {style_of(method).label}")
    for axes, method in zip(panels[:, 0], methods, strict=True):
        axes.set_ylabel(f"rho, {_RHO_UNITS.get(method, _UNIT)}")
    marks = [canvas.entry("first trial accepted", marker="o", markersize=3.5),
             canvas.entry("accepted after rejections", marker="x", markersize=6),
             canvas.entry("nothing accepted", marker="s", markersize=5, markerfacecolor="white")]
    canvas.legend_below(sheet, marks, columns=3)
    return Sketch("Penalty rho", (
        "The state penalty of the last trial of each iteration, first seed, a panel a method, for they do "
        "not "
        "mean the same: of E-MSA rho / 2 multiplies the squared change of an affine stage's output, of the "
        "paper's E-MSA that of a state, and of the secant method it divides a quasi-Newton step. A trial "
        "after "
        "which J is not low enough is rejected, and the stages are maximized again with another rho."), sheet)


def divergence(run: SineTables) -> Sketch | None:
    """Basic MSA: what its gains promise and what happens to J."""
    figures = {figure: (metrics, *stage_sums(stages)) for figure in run.metrics.values("figure")
               if len(metrics := first_seed(run.metrics, figure, "msa"))
               and len(stages := first_seed(run.stages, figure, "msa"))}
    if not figures:
        return None
    sheet = canvas.new_figure(3.1 * len(figures) + 0.5)
    panels = sheet.subplots(len(figures), 2, squeeze=False)
    for (left, right), (figure, (_, iterations, sums)) in zip(panels, figures.items(), strict=True):
        _draw_objective(left, run.metrics.where(figure=figure, method="msa"))
        for column, look in _SUMS.items():
            right.plot(iterations, canvas.positive(sums[column]), **look)
        canvas.log_y(right, list(sums.values()))
        for axes, title in ((left, f"{figure_title(figure)}: J"), (right, "Sums over the stages")):
            canvas.iteration_axis(axes, float(iterations.max()), first=0)
            axes.set_title(title)
    canvas.legend_below(sheet, [canvas.entry("J (mean squared error)", style_of("msa").color, linewidth=1.7),
                                *(canvas.entry(**look) for look in _SUMS.values())])
    rises = " ".join(f"In ({figure}), {first_rise(*found)}." for figure, found in figures.items())
    return Sketch("Basic MSA without penalties", (
        "J of every seed (a cross where it stops being finite), and for the first seed, as sums over the "
        "stages, the predicted decrease of J beside the feasibility errors that the prediction ignores (only "
        "what is positive). " + rises), sheet)


def achieved_steps(rows: Table) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and achieved decrease of the accepted steps between consecutive rows, all seeds."""
    predicted, achieved = [np.empty(0)], [np.empty(0)]
    for one in rows.seeds():
        with np.errstate(invalid="ignore"):
            fell = -np.diff(one["train_loss"])
        mu = one["optimality_gap"][1:]
        taken = (np.diff(one["iteration"]) == 1) & (one["accepted"][1:] == 1)
        keep = taken & np.isfinite(mu) & (mu > 0) & np.isfinite(fell)
        predicted.append(mu[keep])
        achieved.append(fell[keep])
    return np.concatenate(predicted), np.concatenate(achieved)


def _scatter(axes: Axes, steps: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    values = [part[part > 0] for pair in steps.values() for part in pair]
    high = 2 * max(part.max() for part in values if part.size)
    low = max(min(part.min() for part in values if part.size) / 2, high * 10**-_DECADES / 4)
    axes.plot([low, high], [low, high], color=canvas.INK, linewidth=0.9, zorder=1)
    for depth, (method, (mu, fell)) in enumerate(steps.items()):
        color = style_of(method).color
        axes.scatter(mu[fell > 0], fell[fell > 0], s=9, color=color, alpha=0.5, linewidths=0,
                     zorder=3 - depth)
        axes.plot(mu[fell <= 0], np.full((fell <= 0).sum(), 0.02 + 0.035 * depth), color=color, marker="|",
                  markersize=6, alpha=0.6, linestyle="none", transform=axes.get_xaxis_transform(), zorder=2)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), xlabel="predicted decrease mu")
    axes.set_box_aspect(1)
    canvas.log_ticks(axes.xaxis)
    canvas.log_ticks(axes.yaxis)


def _draw_rho(axes: Axes, rows: Table, method: str) -> float:
    """rho and its marks. Returns the last iteration."""
    rows = rows.take(np.isfinite(rows["rho"]) & (rows["iteration"] > 0))
    if not len(rows):
        return 1.0
    look = style_of(method).look | {"linewidth": 1.0}
    k, values, rejected, accepted = (rows[name] for name in ("iteration", "rho", "rejected", "accepted"))
    axes.plot(k, values, label="rho", **look)
    if np.nansum(rejected) or len(np.unique(values)) > 1:
        for chosen, marker, size, more in (
                ((accepted == 1) & ~(rejected > 0), "o", 2.2, {}),
                ((accepted == 1) & (rejected > 0), "x", 5, {"markeredgewidth": 1.2}),
                (accepted == 0, "s", 5, {"markerfacecolor": "white"})):
            axes.plot(k[chosen], values[chosen], marker=marker, markersize=size, zorder=3,
                      **look | {"linestyle": "none"} | more)
    return float(k[-1])


def _draw_objective(axes: Axes, rows: Table) -> None:
    color, losses = style_of("msa").color, [np.empty(0)]
    for one in rows.seeds():
        k, loss = one["iteration"], one["train_loss"]
        axes.plot(k, canvas.positive(loss), color=color, linewidth=1.7, alpha=0.9)
        finite = np.flatnonzero(np.isfinite(loss))
        if finite.size and finite[-1] + 1 < len(one):
            axes.plot(k[finite[-1]], loss[finite[-1]], color=color, marker="x", markersize=7,
                      markeredgewidth=1.7)
        losses.append(loss)
    canvas.log_y(axes, losses)


def stage_sums(rows: Table) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Iterations, and gain and feasibility errors summed over the stages of each."""
    iterations, index = np.unique(rows["iteration"], return_inverse=True)
    return iterations, {column: np.bincount(index, weights=rows[column], minlength=len(iterations))
                        for column in ("gain", "state_error", "costate_error")}


def first_rise(metrics: Table, iterations: np.ndarray, sums: dict[str, np.ndarray]) -> str:
    """The first iteration that raised J against its prediction, in words."""
    metrics = metrics.sort("iteration")
    losses = dict(zip(metrics["iteration"].tolist(), metrics["train_loss"].tolist(), strict=True))
    for place, iteration in enumerate(iterations.tolist()):
        before, after, promised = losses.get(iteration - 1), losses.get(iteration), sums["gain"][place]
        if before is not None and after is not None and after > before and promised > 0:
            error = sums["state_error"][place] + sums["costate_error"][place]
            return (f"iteration {iteration:g} was predicted to lower J by {promised:.2g}; J went from "
                    f"{before:.2g} to {after:.2g}, with feasibility errors of {error:.2g} in all")
    return "J did not rise in an iteration for which a decrease was predicted"
