"""What a picture shows, in words, for those who do not see it: alternative texts, from its axes."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_LONGEST = 700
"""Characters: a minute of a voice that reads."""


def seen(figure: Figure) -> str:
    """Every panel with its title; of a line that has a label where it begins and ends, of a map the range of
    its colors."""
    parts = [f"{title}: {'; '.join(found)}" if found else title for axes in figure.axes if axes.get_visible()
             for title, found in [(axes.get_title(loc="left") or axes.get_title(), list(_contents(axes)))]
             if title or found]
    text = ". ".join(parts) + "." if parts else ""
    return text if len(text) <= _LONGEST else text[:text.rindex(" ", 0, _LONGEST)] + " ..."


def _contents(axes: Axes) -> Iterator[str]:
    for line in axes.lines:
        label = str(line.get_label())
        values = np.asarray(line.get_ydata(), dtype=float)
        values = values[np.isfinite(values)]
        if values.size and not label.startswith("_"):
            first, last = (_number(axes, value) for value in values[[0, -1]])
            yield f"{label} {last}" if first == last else f"{label} from {first} to {last}"
    for mesh in axes.collections:
        if isinstance(mesh, QuadMesh) and mesh.norm.vmin is not None and mesh.norm.vmax is not None:
            yield f"colors from {mesh.norm.vmin:.1e} to {mesh.norm.vmax:.1e}"


def _number(axes: Axes, value: float) -> str:
    """As the axis writes it, to three digits."""
    rounded, form = float(f"{value:.3g}"), axes.yaxis.get_major_formatter()
    return str(form(rounded)) if isinstance(form, FuncFormatter) else f"{rounded:g}"
