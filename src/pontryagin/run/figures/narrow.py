"""A figure for a phone: its panels one below another, with letters that can be read there."""

import re
from collections.abc import Iterable
from itertools import chain
from textwrap import fill

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator

WIDTH, LEAST, MOST = 4.2, 1.8, 2.8
"""Inches. Of a page of 390 pixels: letters of 9 points are then 11 pixels high. Heights of a panel."""
NAME = "name of a line"
"""The id of the words beside a line, for which a narrow panel has no room: they go to the legend."""
_ROW, _TITLE = 0.21, 38
"""Inches that a row of a legend has; characters of a title or label that fit beside each other."""


def narrow(figure: Figure) -> None:
    """Changes a figure that was drawn wide. Panels are taken row by row; shared scales stay shared."""
    cells: dict[tuple[range, range], list[Axes]] = {}
    for axes in figure.axes:
        spec = axes.get_subplotspec()
        if axes.get_visible() and spec is not None:
            cells.setdefault((spec.rowspan, spec.colspan), []).append(axes)  # twins have one cell
    heights = [_height(figure, panels[0]) for panels in cells.values()]
    _label(cells)
    grid = GridSpec(len(cells), 1, figure=figure, height_ratios=heights)
    for number, (panels, height) in enumerate(zip(cells.values(), heights, strict=True)):
        for axes in panels:
            axes.set_subplotspec(grid[number])
            axes.set_xlabel(fill(axes.get_xlabel(), _TITLE))
            axes.set_ylabel(fill(axes.get_ylabel(), int(13 * height)))
        lines = panels[0].get_title(loc="left").strip().splitlines()
        panels[0].set_title("\n".join(fill(line, _TITLE) for line in lines), loc="left")
    figure.set_size_inches(WIDTH, sum(heights) + 0.5 * len(heights) + _ROW * _legend(figure, cells.values()))


def _height(figure: Figure, axes: Axes) -> float:
    """Inches. Where rows have names the panel is as high as it was, for letters keep their size."""
    spec = axes.get_subplotspec()
    share = 0.0 if spec is None else spec.get_position(figure).height / 0.8
    height = float(figure.get_size_inches()[1]) * share
    named = any(re.search("[a-df-z]", label.get_text()) for label in axes.get_yticklabels())
    return height if named else min(max(0.75 * height, LEAST), MOST)


def _label(cells: dict[tuple[range, range], list[Axes]]) -> None:
    """Each panel with what others of its row and column said for it, and fewer ticks."""
    for (row, column), (axes, *_) in cells.items():
        beside = next(panels[0] for (other, _), panels in cells.items() if other == row)
        below = [panels[0] for (_, other), panels in cells.items() if other == column][-1]
        axes.set_ylabel(axes.get_ylabel() or beside.get_ylabel())
        axes.set_xlabel(axes.get_xlabel() or below.get_xlabel())
        above = next(panels[0] for (_, other), panels in cells.items() if other == column)
        axes.set_title(axes.get_title(loc="left") or above.get_title(loc="left"), loc="left")
        axes.tick_params(labelbottom=True, labelleft=True)
        for word, example in zip(axes.get_xticklabels(), below.get_xticklabels(), strict=False):
            word.set(rotation=example.get_rotation(), horizontalalignment=example.get_horizontalalignment())
        if isinstance(axes.xaxis.get_major_locator(), MaxNLocator):
            axes.locator_params(axis="x", nbins=6)


def _legend(figure: Figure, cells: Iterable[list[Axes]]) -> int:
    """The names of lines, and what the legend had, below all panels. Returns its rows."""
    entries: dict[str, Artist] = {}
    for axes in chain.from_iterable(cells):
        lines = {str(line.get_label()): line for line in axes.lines}
        for text in [each for each in axes.texts if each.get_gid() == NAME]:
            entries[text.get_text()] = lines[text.get_text()]
            text.remove()
    for legend in figure.legends:
        entries |= {text.get_text(): handle
                    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True) if handle}
    for legend in [*figure.legends]:
        legend.remove()
    if not entries:
        return 0
    columns = max(1, int(WIDTH / (0.55 + 0.077 * max(map(len, entries)))))
    figure.legend(handles=list(entries.values()), labels=list(entries), loc="outside lower center",
                  ncols=columns, handlelength=2.2, columnspacing=1.2)
    return -(-len(entries) // columns)
