"""What was learned: state trajectories over time, and the fitted function beside its target."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec

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
    grid = GridSpec(2 * len(figures), _MOST + 1, figure=sheet, width_ratios=[1] * _MOST + [2])
    for row, figure in enumerate(figures):
        _draw_states(sheet, [grid[2 * row:2 * row + 2, column] for column in range(_MOST)],
                     finite.where(figure=figure, method=method), figure_title(figure))
        _draw_fit(sheet.add_subplot(grid[2 * row, -1]), sheet.add_subplot(grid[2 * row + 1, -1]),
                  fitted.where(figure=figure))
    components = [entry(f"state, component {component:g}", color, linewidth=1.5)
                  for component, color in _component_colors(finite).items()]
    legend_below(sheet, [*components, entry("target sin x", **_TARGET), *in_order(fitted.values("method"))])
    return Sketch("States over time, and the fitted function",
                  "Over t: the components of the state from the input (t = 0) to the end, for a few inputs "
                  f"x, with the controls that {style_of(str(method)).label} found; the prediction is the "
                  "sum of the final components. Over x: the function that each method fitted, and its "
                  "distance from sin x. First seed.", sheet)


def _draw_states(sheet: Figure, cells: Sequence[SubplotSpec], rows: Table, title: str) -> None:
    inputs = np.unique(rows["x"])
    chosen = inputs[np.unique(np.linspace(0, len(inputs) - 1, _MOST).round().astype(int))]
    first: Axes | None = None
    for cell, x in zip(cells, chosen, strict=False):
        axes = sheet.add_subplot(cell, sharey=first)
        for component, color in _component_colors(rows).items():
            one = rows.where(x=x, component=component).sort("time")
            axes.plot(one["time"], one["state"], color=color, linewidth=1.4)
        axes.set_title(f"{'' if first else title}\nx = {x:.2f}".replace("-", "−"))
        axes.set(xlabel="time t", xlim=(0, rows["time"].max() or 1), ylabel="" if first else "state")
        axes.tick_params(labelleft=not first)
        first = first or axes


def _draw_fit(upper: Axes, lower: Axes, rows: Table) -> None:
    lower.sharex(upper)
    upper.tick_params(labelbottom=False)
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
