"""What was learned: state trajectories over time, and the fitted function beside its target."""

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from pontryagin.run.figures.canvas import Sketch, handle, legend_below, log_y, new_figure
from pontryagin.run.figures.method_style import figure_title, in_order, style_of
from pontryagin.run.tables import Run, Table

_PREFERRED = ("emsa", "emsa-secant", "emsa-paper")
_MOST = 4
"""Inputs shown."""
_TARGET = "#BBBBBB"


def states(run: Run) -> Sketch | None:
    """A row for every figure of the run: trajectories left, the fitted function and its error right."""
    finite = run.states.take(np.isfinite(run.states["state"]))
    fitted = run.fit.take(np.isfinite(run.fit["prediction"]))
    method = next((name for name in (*_PREFERRED, *finite.values("method"))
                   if name in finite.values("method")), None)
    figures = [figure for figure in finite.values("figure")
               if len(finite.where(figure=figure, method=method)) and len(fitted.where(figure=figure))]
    if not figures:
        return None
    sheet = new_figure(3.5 * len(figures) + 0.6)
    rows = sheet.subfigures(len(figures), 1, squeeze=False)[:, 0]
    for row, figure in zip(rows, figures, strict=True):
        left, right = row.subfigures(1, 2, width_ratios=[1.45, 1])
        row.suptitle(figure_title(figure), x=0.008, ha="left", fontsize=9.5, fontweight="bold")
        _draw_states(left, finite.where(figure=figure, method=method))
        _draw_fit(right, fitted.where(figure=figure))
    colors = _component_colors(finite)
    target = Line2D([], [], color=_TARGET, linewidth=5, label="target sin x")
    components = [Line2D([], [], color=color, linewidth=1.5, label=f"state, component {component:g}")
                  for component, color in colors.items()]
    legend_below(sheet, [*components, target, *map(handle, in_order(fitted.values("method")))])
    return Sketch("States over time, and the fitted function",
                  "Left: the components of the state from the input (t = 0) to the end, for a few inputs x, "
                  f"with the controls that {style_of(str(method)).label} found; the prediction is the sum of "
                  "the final components. Right: the function that each method fitted, and its distance from "
                  "sin x. First seed.", sheet)


def _draw_states(area: SubFigure, rows: Table) -> None:
    inputs = np.unique(rows["x"])
    chosen = inputs[np.unique(np.linspace(0, len(inputs) - 1, _MOST).round().astype(int))]
    colors = _component_colors(rows)
    panels = area.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    for axes, x in zip(panels, chosen, strict=True):
        for component, color in colors.items():
            one = rows.where(x=x, component=component).sort("time")
            axes.plot(one["time"], one["state"], color=color, linewidth=1.4)
        axes.set_title(f"x = {x:.2f}".replace("-", "−"), fontweight="normal", fontsize=9)
        axes.set_xlabel("time t")
        axes.set_xlim(0, rows["time"].max() or 1)
    panels[0].set_ylabel("state")


def _draw_fit(area: SubFigure, rows: Table) -> None:
    upper, lower = area.subplots(2, 1, sharex=True, height_ratios=[1, 1])
    methods = in_order(rows.values("method"))
    target = rows.where(method=methods[0]).sort("x")
    upper.plot(target["x"], target["target"], color=_TARGET, linewidth=5, solid_capstyle="round")
    for depth, method in enumerate(reversed(methods)):
        one, look = rows.where(method=method).sort("x"), style_of(method)
        for axes, values in ((upper, one["prediction"]), (lower, np.abs(one["prediction"] - one["target"]))):
            axes.plot(one["x"], values, color=look.color, linestyle=look.line, linewidth=look.width * 0.75,
                      zorder=3 + depth / 100)
    size = float(np.abs(rows["target"]).max()) or 1.0
    upper.set_ylim(-1.8 * size, 1.8 * size)
    distance = np.abs(rows["prediction"] - rows["target"])
    log_y(lower, [np.clip(distance, 1e-3 * float(np.median(distance)), 4 * size)])
    upper.set_ylabel("prediction")
    lower.set_ylabel("distance")
    lower.set_xlabel("x")
    lower.set_xlim(target["x"].min(), target["x"].max())


def _component_colors(rows: Table) -> dict[float, str]:
    components = sorted(rows.values("component"))
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(components)))
    return {component: to_hex(shade) for component, shade in zip(components, shades, strict=True)}
