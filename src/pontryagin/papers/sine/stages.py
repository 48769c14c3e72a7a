"""Heat maps, stage by iteration: Hamiltonian gain and feasibility errors."""

import numpy as np

from pontryagin.papers.sine.states import PREFERRED
from pontryagin.papers.sine.tables import SineTables, first_seed
from pontryagin.run.figures.canvas import new_figure, positive, root_x
from pontryagin.run.figures.iterations import color_bar, color_scale, heat_map
from pontryagin.run.figures.method_style import style_of
from pontryagin.run.tables import Sketch

_DECADES = 12
"""Colors span no more; smaller values have the darkest."""


def gain(run: SineTables) -> Sketch | None:
    """The Hamiltonian gain."""
    return _sketch(
        run, {"gain": "Hamiltonian gain"}, "Hamiltonian gain by stage",
        "How much the last trial of each iteration raised the Hamiltonian of each stage, mean over samples: "
        "where in the network the decrease of J is expected to come from. A column adds up to the optimality "
        "gap.")


def feasibility(run: SineTables) -> Sketch | None:
    """Both feasibility errors."""
    return _sketch(
        run, {"state_error": "state error", "costate_error": "costate error"}, "Feasibility errors by stage",
        "How far the new control of a stage moves the next state, and its costate, which the argmax took as "
        "given: squared change, mean over samples. Where they are small, the predicted decrease can be "
        "relied on.")


def _sketch(run: SineTables, columns: dict[str, str], title: str, caption: str) -> Sketch | None:
    """A panel for every figure of the run and every column; one color scale a column."""
    method = next((name for name in PREFERRED if name in run.stages.values("method")), "")
    tables = {figure: first_seed(run.stages, figure, method) for figure in run.stages.values("figure")}
    tables = {figure: rows for figure, rows in tables.items() if len(rows)}
    if all(np.isnan(positive(rows[column])).all() for rows in tables.values() for column in columns):
        return None
    sheet = new_figure(3.0 * len(columns) + 0.2)
    panels = sheet.subplots(len(columns), len(tables), squeeze=False, sharey=True)
    for row, (column, label) in zip(panels, columns.items(), strict=True):
        norm = color_scale(np.concatenate([rows[column] for rows in tables.values()]), _DECADES)
        for axes, (figure, rows) in zip(row, tables.items(), strict=True):
            iterations, across = np.unique(rows["iteration"], return_inverse=True)
            stages, up = np.unique(rows["stage"], return_inverse=True)
            values = np.full((len(stages), len(iterations)), np.nan)
            values[up, across] = rows[column]
            middles = (iterations[1:] + iterations[:-1]) / 2
            edges = np.concatenate([[max(iterations[0] - 0.5, 0.5)], middles, [iterations[-1] + 0.5]])
            mesh = heat_map(axes, edges, values, norm, first=1)
            root_x(axes, float(edges[0]), float(edges[-1]))
            axes.set_ylim(0.5, len(stages) + 0.5)
            axes.set_yticks(sorted({1, *range(5, len(stages) + 1, 5), len(stages)}))
            axes.set_title(f"({figure}) {label}")
        row[0].set_ylabel("stage")
        color_bar(sheet, mesh, row, label, pad=0.015, aspect=24)
    seeds = " and ".join(f"{seed:g}" for seed in sorted({float(rows["seed"][0]) for rows in tables.values()}))
    return Sketch(title, f"{caption} Method: {style_of(method).label}; seed {seeds}. Iterations by their "
                         f"square root. Colors are "
                         f"logarithmic, over at most {_DECADES} decades; tan: zero, negative or not "
                         f"recorded.", sheet)
