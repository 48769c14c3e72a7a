"""The iterations of one run in one picture: what was promised and done, C and rho, and where in the
network."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pontryagin.diagnostics import iteration_row, rejected_share, stage_rows
from pontryagin.problem import ProblemError
from pontryagin.run.figures.canvas import INK, MASKED, Sketch, iteration_axis, log_ticks, log_y, new_figure
from pontryagin.update import IterationRecord

_BLUE, _RED, _PINK = "#0072B2", "#D55E00", "#CC79A7"
_DECADES = 8


def record_figure(records: Sequence[IterationRecord], title: str = "Iterations") -> Sketch:
    """Predicted and achieved decrease, C_k beside rho / 2, Hamiltonian gain and feasibility errors by stage
    and iteration.

    Raises ProblemError when there are no records.
    """
    if not records:
        raise ProblemError("record_figure: expected iteration records, found none")
    rows = [iteration_row(record) for record in records]
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    sheet = new_figure(7.6)
    panels = sheet.subplots(2, 2)
    _decrease(panels[0, 0], columns)
    _constant(panels[0, 1], columns)
    stages = [stage_rows(record) for record in records]
    gains = np.array([[float(one["gain"]) for one in each] for each in stages]).T
    errors = np.array([[float(one["state_error"]) + float(one["costate_error"]) for one in each]
                       for each in stages]).T
    _map(sheet, panels[1, 0], gains, "Hamiltonian gain by stage")
    _map(sheet, panels[1, 1], errors, "Feasibility errors by stage (state + costate)")
    rises = sum(record.objective_after > record.objective_before for record in records)
    return Sketch(title, (
        "Predicted decrease: the sum of the Hamiltonian gains, mu; achieved: that of the same trial, J "
        "before minus J after. C: the constant of Lemma 2 as the trial shows it, (mu - achieved) / "
        "feasibility errors; with rho above it J falls, and rho = 2C is the step of least J. Crosses: "
        f"iterations with rejected trials. {rejected_share(records):.0%} of all trials were rejected; J rose "
        f"in {rises} of {len(records)} iterations."), sheet)


def _decrease(axes: Axes, columns: dict[str, np.ndarray]) -> None:
    k = columns["iteration"]
    axes.plot(k, _positive(columns["optimality_gap"]), color=_BLUE, label="predicted, mu")
    axes.plot(k, _positive(columns["achieved"]), color=_RED, label="achieved")
    axes.plot(k, _positive(columns["objective"]), color=INK, linewidth=0.9, label="J")
    log_y(axes, [columns["optimality_gap"], columns["achieved"], columns["objective"]])
    iteration_axis(axes, float(k[-1]))
    axes.set_title("Decrease of J")
    axes.legend()


def _constant(axes: Axes, columns: dict[str, np.ndarray]) -> None:
    k, rejected = columns["iteration"], columns["rejected"] > 0
    axes.plot(k, _positive(columns["estimate"]), color=_PINK, marker="o", markersize=2.5, linewidth=0.9,
              label="C")
    axes.plot(k, columns["rho_state"] / 2, color=_BLUE, label="rho / 2")
    axes.plot(k[rejected], columns["rho_state"][rejected] / 2, color=_BLUE, marker="x", linestyle="none",
              label="after rejections")
    log_y(axes, [columns["estimate"], columns["rho_state"] / 2], decades=10)
    iteration_axis(axes, float(k[-1]))
    axes.set_title("Constant of Lemma 2 and penalty (largest over stages)")
    axes.legend()


def _map(sheet: Figure, axes: Axes, values: np.ndarray, title: str) -> None:
    shown = values[np.isfinite(values) & (values > 0)]
    top = float(shown.max()) if shown.size else 1.0
    low = max(float(shown.min()) if shown.size else 0.1, top * 10**-_DECADES)
    axes.set_facecolor(MASKED)
    mesh = axes.pcolormesh(np.arange(values.shape[1] + 1) + 0.5, np.arange(values.shape[0] + 1) - 0.5,
                           np.ma.masked_less_equal(np.nan_to_num(values), 0.0), cmap="viridis",
                           norm=LogNorm(min(low, top / 10), top))
    axes.grid(False)
    axes.set(title=title, xlabel="iteration", ylabel="stage with a control")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = sheet.colorbar(mesh, ax=axes, pad=0.02)
    log_ticks(bar.ax.yaxis)


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
