"""The iterations of one run in one picture: what was promised and done, C and rho, and where in the network;
heat maps, stage by iteration."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pontryagin.diagnostics import iteration_row, rejected_share, stage_rows
from pontryagin.problem import ProblemError
from pontryagin.run.figures import canvas
from pontryagin.run.figures.method_style import INDIGO, ORANGE, PINK, SKY
from pontryagin.run.tables import Sketch
from pontryagin.update import IterationRecord

_DECADES = 8
NOTHING = "#EBCFAE"
"""Where a map has nothing to show: a color that its scale does not have."""


def record_figure(records: Sequence[IterationRecord], title: str = "Iterations") -> Sketch:
    """Predicted and achieved decrease, C_k beside rho / 2, Hamiltonian gain and feasibility errors by stage
    and iteration.

    Raises ProblemError when there are no records.
    """
    if not records:
        raise ProblemError("record_figure: expected iteration records, found none")
    rows = [iteration_row(record) for record in records]
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    sheet = canvas.new_figure(7.6)
    panels = sheet.subplots(2, 2)
    _decrease(panels[0, 0], columns)
    _constant(panels[0, 1], columns)
    stages = [stage_rows(record) for record in records]
    gains = np.array([[float(one["gain"]) for one in each] for each in stages]).T
    errors = np.array([[float(one["state_error"]) + float(one["costate_error"]) for one in each]
                       for each in stages]).T
    _map(sheet, panels[1, 0], gains, "Hamiltonian gain by stage", "gain, in units of J")
    _map(sheet, panels[1, 1], errors, "Feasibility errors by stage", "state + costate, squared change")
    rises = sum(record.objective_after > record.objective_before for record in records)
    return Sketch(title, (
        "Predicted decrease: the sum of the Hamiltonian gains, mu; achieved: that of the same trial, J "
        "before minus J after. C: the constant of Lemma 2 as the trial shows it, (mu - achieved) / "
        "feasibility errors; with rho above it J falls, and rho = 2C is the step of least J. Crosses: "
        "iterations with rejected trials, whose own C is not shown though the rule uses it; with momentum "
        "the rule measures C along the step. What is not positive is left out, and tan in the maps. "
        f"{100 * rejected_share(records):.0f} % of all trials were rejected; J rose "
        f"in {rises} of {len(records)} iterations."), sheet)


def _decrease(axes: Axes, columns: dict[str, np.ndarray]) -> None:
    k = columns["iteration"]
    axes.plot(k, canvas.positive(columns["optimality_gap"]), color=ORANGE, label="predicted, mu")
    axes.plot(k, canvas.positive(columns["achieved"]), color=SKY, label="achieved")
    axes.plot(k, canvas.positive(columns["objective"]), color=canvas.INK, linewidth=0.9, label="J")
    canvas.log_y(axes, [columns["optimality_gap"], columns["achieved"], columns["objective"]])
    canvas.iteration_axis(axes, float(k[-1]))
    axes.set_title("Decrease of J")
    axes.legend()


def _constant(axes: Axes, columns: dict[str, np.ndarray]) -> None:
    k, rejected = columns["iteration"], columns["rejected"] > 0
    axes.plot(k, canvas.positive(columns["estimate"]), color=PINK, marker="o", markersize=2.5, linewidth=0.9,
              label="C")
    axes.plot(k, columns["rho_state"] / 2, color=INDIGO, label="rho / 2")
    axes.plot(k[rejected], columns["rho_state"][rejected] / 2, color=INDIGO, marker="x", linestyle="none",
              label="after rejections")
    canvas.log_y(axes, [columns["estimate"], columns["rho_state"] / 2], decades=10)
    canvas.iteration_axis(axes, float(k[-1]))
    axes.set_title("Constant of Lemma 2 and penalty (largest over stages)")
    axes.legend()


def _map(sheet: Figure, axes: Axes, values: np.ndarray, title: str, label: str) -> None:
    mesh = heat_map(axes, np.arange(values.shape[1] + 1) + 0.5, values, color_scale(values, _DECADES))
    axes.set(title=title, xlabel="iteration", ylabel="stage with a control")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    color_bar(sheet, mesh, [axes], label, pad=0.02)


def heat_map(axes: Axes, edges: np.ndarray, values: np.ndarray, scale: LogNorm,
             first: int = 0) -> ScalarMappable:
    """values: (stage, iteration), tan where they are not canvas.positive. edges: of the iterations; first:
    stage's number. Greater is darker, so that the picture can be turned to white on black."""
    axes.grid(visible=False)
    axes.set_facecolor(NOTHING)
    return axes.pcolormesh(edges, np.arange(len(values) + 1) + first - 0.5,
                           np.ma.masked_invalid(canvas.positive(values)), norm=scale, cmap="YlGnBu")


def color_scale(values: np.ndarray, decades: float) -> LogNorm:
    """Around the canvas.positive values, no more than so many decades below the greatest."""
    shown = values[np.isfinite(canvas.positive(values))]
    high = float(shown.max()) if shown.size else 1.0
    low = max(float(shown.min()), high * 10**-decades) if shown.size else 0.1
    return LogNorm(low if low < high else high / 10, high, clip=True)


def color_bar(sheet: Figure, mesh: ScalarMappable, panels: Sequence[Axes], label: str, **place: Any) -> None:
    """Beside the panels, with what the colors mean."""
    bar = sheet.colorbar(mesh, ax=list(panels), label=label, **place)
    canvas.log_ticks(bar.ax.yaxis)
    bar.ax.grid(visible=False)
    bar.outline.set_visible(False)
