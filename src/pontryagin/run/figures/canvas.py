"""Paper to draw on: one sober style, axes of iterations, PNG files. Never touches pyplot."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from pontryagin.run.figures.method_style import style_of
from pontryagin.run.figures.narrow import NAME, narrow
from pontryagin.run.figures.seen import seen
from pontryagin.run.files import write_bytes
from pontryagin.run.tables import Drawing, Sketch

WIDTH = 10.0
"""Inches."""
INK, MASKED = "#222222", "#B5B5B5"


def draw(folder: Path, sketches: Mapping[str, Callable[[], Sketch | None]]) -> list[Drawing]:
    """Every sketch that there is, by name, as folder/figures/NAME.png, and for phones as NAME-narrow.png;
    matplotlib's settings stay as they are."""
    drawings = []
    style = matplotlib.rc_params_from_file(Path(__file__).with_suffix(".mplstyle"),
                                           use_default_template=False)
    with matplotlib.rc_context(style):
        for name, sketched in sketches.items():
            if sketch := sketched():
                path, small = folder / "figures" / f"{name}.png", folder / "figures" / f"{name}-narrow.png"
                told = seen(sketch.figure)
                _write(sketch.figure, path)
                narrow(sketch.figure)
                _write(sketch.figure, small)
                drawings.append(Drawing(name, sketch.title, sketch.caption, path, told, small))
    return drawings


def _write(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_bytes(path, content.getvalue())


def new_figure(height: float) -> Figure:
    """WIDTH x height inches, laid out by constraints."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(value: float, _position: int = 0) -> str:
    """1000 as 1000, 1e-6 as 1e-6."""
    if value == 0 or 1e-2 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def log_ticks(axis: matplotlib.axis.Axis) -> None:
    """A number at every decade, at every few when there are many, at 2 and 5 too when there are few, at more
    within one."""
    low, high = sorted(axis.get_view_interval())
    ratio = high / low if low > 0 else float("inf")
    subs = (tuple(map(float, range(1, 10))) if ratio < 2.5 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if ratio < 6
            else (1.0, 2.0, 5.0) if ratio < 300 else (1.0,))
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(NullFormatter())


def log_x(axes: Axes, first: float, last: float) -> None:
    """A logarithmic axis from first to last, both > 0."""
    axes.set_xscale("log")
    axes.set_xlim(first, max(last, first * 1.5))
    log_ticks(axes.xaxis)


def signed_x(axes: Axes, values: np.ndarray) -> None:
    """Around the finite values of both signs: linear about zero, up to the first quartile of their sizes, and
    logarithmic beyond, with a number at zero and at every decade."""
    values = values[np.isfinite(values) & (values != 0)]
    if not values.size:
        return
    linear, low, high = float(np.quantile(np.abs(values), 0.25)), float(values.min()), float(values.max())
    axes.set_xscale("symlog", linthresh=linear, linscale=0.7)
    axes.set_xlim(4 * low if low < 0 else -linear, 2 * high if high > 0 else linear)
    decades = [sign * 10.0**power for power in range(-12, 6) for sign in (-1, 1) if 10.0**power > linear]
    axes.xaxis.set_major_locator(FixedLocator([0.0, *decades]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(plain))


def iteration_axis(axes: Axes, last: float, label: str = "iteration", first: float = 1) -> None:
    """Iterations (or epochs) from the first: logarithmic, or linear when they are few or the first is 0."""
    if last > 20 and first > 0:
        log_x(axes, first, last)
    else:
        axes.set_xlim(first - 0.5, max(last, 1) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel(label)


def log_y(axes: Axes, values: Sequence[np.ndarray], decades: float = 14, margin: float = 1.6) -> None:
    """A logarithmic axis around the positive finite values, its top never more than `decades` above its
    bottom."""
    flat = np.concatenate([np.ravel(each) for each in values]) if values else np.empty(0)
    flat = flat[np.isfinite(flat) & (flat > 0)]
    low, high = (float(flat.min()), float(flat.max())) if flat.size else (0.1, 1.0)
    axes.set_yscale("log")
    axes.set_ylim(max(low, high * 10**-decades) / margin, high * margin)
    log_ticks(axes.yaxis)


def positive(values: np.ndarray) -> np.ndarray:
    """nan for what a logarithmic axis cannot show."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def root_x(axes: Axes, first: float, last: float) -> None:
    """Iterations from first to last by their square root: early ones are wide enough to be seen, and none
    takes a fifth of the width."""
    axes.set_xscale("function", functions=(lambda k: np.sqrt(np.maximum(k, 0)), np.square))
    axes.set_xlim(first, last)
    digits = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
    ticks = [tick for tick in digits if tick <= last]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick >= last / 100]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.set_xlabel("iteration")


def name_lines(axes: Axes, height: float) -> None:
    """The label of every line that has one, at the right edge of the panel, level with the line's end; apart
    where ends are near each other. Limits and scales of the axes are set before. height: of the panel,
    inches."""
    ends = {}
    for line in axes.lines:
        y = np.asarray(line.get_ydata(), dtype=float)
        y = y[np.isfinite(y)]
        if y.size and not str(line.get_label()).startswith("_"):
            level = (axes.transScale + axes.transLimits).transform((axes.get_xlim()[1], y[-1]))[1]
            ends[str(line.get_label())] = float(np.clip(level, 0, 1)), line.get_color()
    gap, below = 0.16 / height, -1.0
    order = sorted(ends, key=lambda label: ends[label][0])
    room = 1 + 0.04 - gap * np.arange(len(order))[::-1]  # the highest that leaves room for those above
    for label, most in zip(order, room, strict=True):
        level, color = ends[label]
        below = min(max(level, below + gap), max(float(most), below + gap))
        axes.annotate(label, (1, below), xycoords="axes fraction", xytext=(5, 0), textcoords="offset points",
                      va="center", fontsize=8.5, color=_darker(str(color)), annotation_clip=False, gid=NAME)


def _darker(color: str) -> tuple[float, ...]:
    """For words, which are thin."""
    return tuple(0.72 * part for part in to_rgb(color))


def entry(label: str, color: str = "#666666", marker: str | None = None, **look: Any) -> Line2D:
    """Of a legend: a line, or a mark alone."""
    mark = {"marker": marker, "linestyle": "none"} if marker else {}
    return Line2D([], [], label=label, color=color, **(mark | look))


def legend_below(figure: Figure, entries: Sequence[str | Line2D], columns: int = 5) -> None:
    """A legend under all panels; a name is a method's."""
    handles = [Line2D([], [], label=style_of(each).label, **style_of(each).look) if isinstance(each, str)
               else each for each in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.8,
                  columnspacing=2.0)
