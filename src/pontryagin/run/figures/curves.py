"""Curves with their spread over seeds: each seed and the median, or the median and a band."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pontryagin.run.figures.method_style import style_of
from pontryagin.run.tables import Table

Measure = Callable[[Table], np.ndarray]


def draw_seeds(axes: Axes, rows: Table, method: str, x: str, measure: Measure, at: str = "",
               marker: str | None = "o") -> list[np.ndarray]:
    """Every seed of a method, and their median, which has the method's label, as far as all seeds have the
    same values of `at` (by default of x). Returns the values of each seed."""
    look = style_of(method).look | {"label": style_of(method).label}
    seeds = [(own[at or x], own[x], measure(own)) for own in rows.seeds(at or x)]
    alone = len(seeds) == 1
    thin = {} if alone else {"linewidth": 0.6, "alpha": 0.5, "marker": None, "label": "_seed"}
    for _, across, value in seeds:
        axes.plot(across, value, **({"marker": marker, "markersize": 3, "zorder": 3} | look | thin))
    shared = min((len(own[0]) for own in seeds), default=0)
    if not alone and shared and all(np.array_equal(own[0][:shared], seeds[0][0][:shared]) for own in seeds):
        middle = [np.median([own[part][:shared] for own in seeds], axis=0) for part in (1, 2)]
        axes.plot(*middle, marker=marker, markersize=3, zorder=4, **look)
    return [value for _, _, value in seeds]


def draw_band(axes: Axes, x: np.ndarray, seeds: Sequence[np.ndarray], depth: float = 0.0,
              **look: Any) -> None:
    """The median over the seeds, and a band from the least to the greatest where there are several."""
    values = np.stack(seeds)
    axes.plot(x, np.median(values, axis=0), zorder=3 + depth, **look)
    if len(values) > 1:
        axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.15,
                          linewidth=0, zorder=2)
