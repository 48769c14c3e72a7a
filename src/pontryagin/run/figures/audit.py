"""Pictures of an audit: what is still to be had at each stage, and predicted beside true costs of admissible
sets."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

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
                  _values(stage.gain_error for stage in audit.stages), fmt="o", color=_COLORS[0],
                  markersize=4, capsize=2, linewidth=1)
    gain.set_title("Hamiltonian gain still to be had")
    gain.set_ylabel("loss")
    for axes, values, title, color in (
            (costate, _values(stage.costate_norm for stage in audit.stages), "Costate norm", _COLORS[1]),
            (condition, _values(stage.condition for stage in audit.stages),
             "Condition of the damped Gram matrix", _COLORS[2])):
        axes.plot(x, values, "o", color=color, markersize=4)
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
    """A panel a set: predicted and true costs by stage. None without sets."""
    sets = [name for name in audit.sets if audit.ranking(name)]
    if not sets:
        return None
    rows = -(-len(sets) // 2)
    sheet = canvas.new_figure(2.7 * rows + 0.4 + (0.8 if len(audit.stages) <= _NAMED else 0.0))
    panels = sheet.subplots(rows, 2, sharex=True, squeeze=False)
    names = [stage.name for stage in audit.stages if stage.restrictions]
    for axes, name, color in zip(panels.flat, sets, _COLORS, strict=False):
        _costs(axes, audit, name, names, color)
    for axes in panels.flat[len(sets):]:
        axes.set_visible(False)
    for axes in panels[-1]:
        _stage_axis(axes, names)
    if len(sets) % 2 and rows > 1:
        panels[-2, 1].tick_params(labelbottom=True)
        _stage_axis(panels[-2, 1], names)
    canvas.legend_below(sheet, [canvas.entry(label, canvas.INK, marker, markerfacecolor="none")
                         for marker, label in (("o", "predicted"), ("x", "true"))])
    return Sketch("What other sets would cost", (
        "Change of the mean loss when one stage alone is moved into the set, all others staying as they are. "
        "Circles: predicted from the costates of the outputs; crosses: measured with the weights replaced. "
        "The axis is linear near zero and logarithmic beyond. r: rank correlation of predicted with true "
        "costs over the stages."), sheet)


def _costs(axes: Axes, audit: Audit, name: str, names: Sequence[str], color: str) -> None:
    pairs = audit.ranking(name)
    x = np.array([names.index(stage.name) for stage, _ in pairs])
    predicted, true = _values(each.predicted for _, each in pairs), _values(each.true for _, each in pairs)
    both = np.abs(np.concatenate([predicted, true]))
    both = both[np.isfinite(both) & (both > 0)]
    axes.axhline(0, color=canvas.INK, linewidth=0.8)
    for place, first, second in zip(x, predicted, true, strict=True):
        axes.plot([place, place], [first, second], color=canvas.MASKED, linewidth=1, zorder=1)
    axes.plot(x, predicted, "o", markerfacecolor="none", color=color, markersize=5, label="predicted")
    axes.plot(x, true, "x", color=color, markersize=5, label="true")
    if both.size:
        axes.set_yscale("symlog", linthresh=float(np.quantile(both, 0.2)), linscale=1.0)
        axes.margins(y=0.12)
        axes.yaxis.set_major_formatter(FuncFormatter(canvas.plain))
    agreement = audit.agreement(name)
    axes.set_title(name + ("" if agreement is None else f": r = {agreement:.2f}"))
    axes.set_ylabel("change of the loss")


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
