"""Heat maps, stage by iteration: Hamiltonian gain and feasibility errors."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from pontryagin.run.figures.canvas import MASKED, Sketch, iteration_axis, log_ticks, new_figure
from pontryagin.run.figures.method_style import style_of
from pontryagin.run.tables import Run, Table, first_seed

_DECADES = 12
"""Colors span no more; smaller values have the darkest."""


def gain(run: Run) -> Sketch | None:
    """The Hamiltonian gain."""
    return _sketch(
        run, {"gain": "Hamiltonian gain"}, "Hamiltonian gain by stage",
        "How much the last trial of each iteration raised the Hamiltonian of each stage, mean over samples: "
        "where in the network the decrease of J is expected to come from. A column adds up to the optimality "
        "gap.")


def feasibility(run: Run) -> Sketch | None:
    """Both feasibility errors."""
    return _sketch(
        run, {"state_error": "state error", "costate_error": "costate error"}, "Feasibility errors by stage",
        "How far the new control of a stage moves the next state, and its costate, which the argmax took as "
        "given: squared change, mean over samples. Where they are small, the predicted decrease can be "
        "relied on.")


def _sketch(run: Run, columns: dict[str, str], title: str, caption: str) -> Sketch | None:
    """A panel for every figure of the run and every column; one color scale a column."""
    method = next((name for name in ("emsa", "emsa-secant", "emsa-paper")
                   if name in run.stages.values("method")), None)
    tables = {figure: first_seed(run.stages, figure, method)
              for figure in run.stages.values("figure") if method}
    tables = {figure: rows for figure, rows in tables.items() if len(rows)}
    if method is None or not any(_shown(rows[column]).any() for rows in tables.values()
                                 for column in columns):
        return None
    sheet = new_figure(3.0 * len(columns) + 0.2)
    panels = sheet.subplots(len(columns), len(tables), squeeze=False, sharey=True)
    for row, (column, label) in zip(panels, columns.items(), strict=True):
        norm = _norm(np.concatenate([rows[column] for rows in tables.values()]))
        for axes, (figure, rows) in zip(row, tables.items(), strict=True):
            mesh = _heat_map(axes, rows, column, norm)
            axes.set_title(f"({figure}) {label}")
        row[0].set_ylabel("stage")
        _color_bar(sheet, mesh, list(row))
    seeds = " and ".join(f"{seed:g}" for seed in sorted({float(rows["seed"][0]) for rows in tables.values()}))
    return Sketch(title, f"{caption} Method: {style_of(method).label}; seed {seeds}. Colors are logarithmic, "
                         f"over at most {_DECADES} decades; grey: zero, negative or not recorded.", sheet)


def _heat_map(axes: Axes, rows: Table, column: str, norm: LogNorm) -> ScalarMappable:
    iterations, across = np.unique(rows["iteration"], return_inverse=True)
    stages, up = np.unique(rows["stage"], return_inverse=True)
    values = np.full((len(stages), len(iterations)), np.nan)
    values[up, across] = rows[column]
    middles = (iterations[1:] + iterations[:-1]) / 2
    edges = np.concatenate([[max(iterations[0] - 0.5, 0.5)], middles, [iterations[-1] + 0.5]])
    axes.grid(visible=False)
    axes.set_facecolor(MASKED)
    mesh = axes.pcolormesh(edges, np.arange(len(stages) + 1) + 0.5,
                           np.ma.masked_where(~_shown(values), values), norm=norm, cmap="viridis")
    iteration_axis(axes, float(edges[-1]), first=float(edges[0]))
    axes.set_ylim(0.5, len(stages) + 0.5)
    axes.set_yticks(sorted({1, *range(5, len(stages) + 1, 5), len(stages)}))
    return mesh


def _norm(values: np.ndarray) -> LogNorm:
    positive = values[_shown(values)]
    high = float(positive.max()) if positive.size else 1.0
    low = max(float(positive.min()), high * 10**-_DECADES) if positive.size else 0.1
    return LogNorm(low if low < high else high / 10, high, clip=True)


def _shown(values: np.ndarray) -> np.ndarray:
    return np.isfinite(values) & (values > 0)


def _color_bar(sheet: Figure, mesh: ScalarMappable, panels: list[Axes]) -> None:
    bar = sheet.colorbar(mesh, ax=panels, pad=0.015, aspect=24)
    log_ticks(bar.ax.yaxis)
    bar.ax.grid(visible=False)
    bar.outline.set_visible(False)
