"""Pictures of an audit: what is still to be had at each stage, and predicted beside true costs of admissible
sets."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pontryagin.audit import Audit
from pontryagin.run.figures import canvas
from pontryagin.run.figures.method_style import BLACK, BLUE, GREEN, ORANGE, PINK, RED, SKY
from pontryagin.run.tables import Sketch

_COLORS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK)
_NAMED = 30
"""Up to so many stages each has its name on the axis."""


def stages(audit: Audit) -> Sketch:
    """Gain with its error, costate norm and conditioning, stage by stage."""
    sheet = canvas.new_figure(7.0)
    gain, costate, condition = sheet.subplots(3, 1, sharex=True)
    x = np.arange(len(audit.stages))
    gain.axhline(0, color=canvas.INK, linewidth=0.8)
    gain.errorbar(x, _values(stage.gain for stage in audit.stages),
                  _values(stage.gain_error for stage in audit.stages), fmt="o", color=canvas.INK,
                  markersize=4, capsize=2, linewidth=1)
    gain.set_title("Hamiltonian gain still to be had")
    gain.set_ylabel("loss")
    for axes, values, title in (
            (costate, _values(stage.costate_norm for stage in audit.stages), "Costate norm"),
            (condition, _values(stage.condition for stage in audit.stages),
             "Condition of the damped Gram matrix")):
        axes.plot(x, values, "o", color=canvas.INK, markersize=4, label="first to last stage")
        canvas.log_y(axes, [values])
        axes.set_title(title)
    _stage_axis(condition, [stage.name for stage in audit.stages])
    return Sketch("Stages", (
        "Gain: how much the stage's Hamiltonian would still rise if the stage alone went to its argmax, in "
        "units of the loss, with its standard error over batches; noise adds nothing to it, so at a "
        "converged stage it lies around zero. Costate norm: root mean square over samples. Condition: "
        "largest over smallest eigenvalue of the second moment of the stage's inputs, damped by "
        f"{audit.damping:g} of its mean diagonal."), sheet)


def costs(audit: Audit) -> Sketch | None:
    """A row a stage, a color a set: predicted and true costs with their errors, all on one axis. None without
    sets."""
    sets = [name for name in audit.sets if audit.ranking(name)]
    if not sets:
        return None
    names = [stage.name for stage in audit.stages if stage.restrictions]
    sheet = canvas.new_figure(1.7 + min(len(names) * (0.16 + 0.13 * len(sets)), 30.0))
    axes = sheet.subplots()
    values = [_set_costs(axes, audit, name, names, color, (place + 1) / (len(sets) + 1) - 0.5)
              for place, (name, color) in enumerate(zip(sets, _COLORS, strict=False))]
    axes.axvline(0, color=canvas.INK, linewidth=0.8)
    canvas.signed_x(axes, np.concatenate(values))
    axes.set_xlabel("change of the loss")
    axes.set_ylim(len(names) - 0.4, -0.6)
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axhline(edge, color="#E6E6E6", linewidth=0.6, zorder=0)
    axes.grid(visible=False, axis="y")
    axes.set_title("Cost of moving one stage into a set")
    _names(axes, names)
    canvas.legend_below(sheet, [
        *(canvas.entry(_with_agreement(audit, name), color, "s", markersize=5)
          for name, color in zip(sets, _COLORS, strict=False)),
        canvas.entry("predicted", canvas.INK, "o", markerfacecolor="none"),
        canvas.entry("true", canvas.INK, "x")], columns=4)
    return Sketch("What other sets would cost", (
        "Change of the mean loss when one stage alone is moved into the set, all others staying as they are. "
        "Circles: predicted from the costates of the outputs; crosses: measured with the weights replaced; "
        "bars: their standard errors. The axis is linear near zero and logarithmic beyond, and the same for "
        "all sets. r: rank correlation of predicted with true costs over the stages."), sheet)


def _set_costs(axes: Axes, audit: Audit, name: str, names: Sequence[str], color: str,
               shift: float) -> np.ndarray:
    """Of one set, `shift` below the middle of the rows; returns the costs."""
    pairs = audit.ranking(name)
    y = np.array([names.index(stage.name) for stage, _ in pairs]) + shift
    predicted, true = _values(each.predicted for _, each in pairs), _values(each.true for _, each in pairs)
    axes.hlines(y, predicted, true, color=canvas.MASKED, linewidth=0.8, zorder=1)
    look: dict[str, Any] = {"color": color, "linestyle": "none", "elinewidth": 0.8, "capsize": 1.5}
    axes.errorbar(predicted, y, xerr=_values(each.predicted_error for _, each in pairs), marker="o",
                  markerfacecolor="none", markersize=4.5, **look)
    axes.errorbar(true, y, xerr=_values(each.true_error for _, each in pairs), marker="x", markersize=4.5,
                  **look)
    return np.concatenate([predicted, true])


def _with_agreement(audit: Audit, name: str) -> str:
    agreement = audit.agreement(name)
    return name if agreement is None else f"{name} (r = {agreement:.2f})"


def _names(axes: Axes, names: Sequence[str]) -> None:
    """Of the stages, by row; every few where they are many."""
    step = -(-len(names) // 60)
    axes.set_yticks(range(0, len(names), step), [name.removesuffix(".weight") for name in names[::step]],
                    fontsize=8)


def _stage_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xlim(-0.6, len(names) - 0.4)
    if len(names) <= _NAMED:
        labels = [name.removesuffix(".weight") for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", fontsize=7.5)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("stage")


def _values(numbers: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if number is None else number for number in numbers], dtype=float)
