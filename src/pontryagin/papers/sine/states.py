"""What was learned: state trajectories over time, and the fitted function beside its target."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import SubFigure

from pontryagin.papers.sine.tables import SineTables
from pontryagin.papers.sine.task import figure_title
from pontryagin.run.figures.canvas import entry, legend_below, log_y, new_figure
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.tables import Sketch, Table

PREFERRED = ("emsa", "emsa-secant", "emsa-paper")
"""Of these methods, the first that was run is the one that figures look into."""
_MOST = 4
"""Inputs shown."""
_TARGET: dict[str, Any] = {"color": "#BBBBBB", "linewidth": 5}


def states(run: SineTables) -> Sketch | None:
    """A row for every figure of the run: trajectories left, the fitted function and its error right."""
    finite = run.states.take(np.isfinite(run.states["state"]))
    fitted = run.fit.take(np.isfinite(run.fit["prediction"]))
    method = next((name for name in (*PREFERRED, *finite.values("method"))
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
    components = [entry(f"state, component {component:g}", color, linewidth=1.5)
                  for component, color in _component_colors(finite).items()]
    legend_below(sheet, [*components, entry("target sin x", **_TARGET), *in_order(fitted.values("method"))])
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
        axes.set(xlabel="time t", xlim=(0, rows["time"].max() or 1))
    panels[0].set_ylabel("state")


def _draw_fit(area: SubFigure, rows: Table) -> None:
    upper, lower = area.subplots(2, 1, sharex=True, height_ratios=[1, 1])
    methods = in_order(rows.values("method"))
    target = rows.where(method=methods[0]).sort("x")
    upper.plot(target["x"], target["target"], solid_capstyle="round", **_TARGET)
    for depth, method in enumerate(reversed(methods)):
        one, style = rows.where(method=method).sort("x"), style_of(method)
        for axes, values in ((upper, one["prediction"]), (lower, np.abs(one["prediction"] - one["target"]))):
            axes.plot(one["x"], values, zorder=3 + depth / 100,
                      **style.look | {"linewidth": style.width * 0.75})
    size = float(np.abs(rows["target"]).max()) or 1.0
    distance = np.abs(rows["prediction"] - rows["target"])
    log_y(lower, [np.clip(distance, 1e-3 * float(np.median(distance)), 4 * size)])
    upper.set(ylabel="prediction", ylim=(-1.8 * size, 1.8 * size))
    lower.set(ylabel="distance", xlabel="x", xlim=(target["x"].min(), target["x"].max()))


def _component_colors(rows: Table) -> dict[float, str]:
    components = sorted(rows.values("component"))
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(components)))
    return {component: to_hex(shade) for component, shade in zip(components, shades, strict=True)}
