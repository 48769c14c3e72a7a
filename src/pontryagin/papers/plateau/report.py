"""report.html of `reproduce plateau`: its table and its figure."""

import json
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pontryagin.papers.plateau.experiment import TUNING_RULE, PlateauResults
from pontryagin.run.figures.canvas import legend_below, log_ticks, new_figure
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.reports.page import Banner, Block, Cells, pictures, write_page
from pontryagin.run.reports.words import NONE, count, lines
from pontryagin.run.summary import reached
from pontryagin.run.tables import Sketch

_TITLE = "Leaving the plateau of the sine"
_WAYS = (("Why it is slow there, by the Hessian:", "pontryagin reproduce saddle"),
         ("The whole of Figure 1:", "pontryagin reproduce sine --quick"))
_HEAD = ("method", "layers", "noise", "rate", "iterations", "least to greatest", "seeds that left")


def write_report(folder: Path, results: PlateauResults) -> tuple[Path, str]:
    """The figure and report.html, beside the run's summary.json; returns its path and the table as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows = _rows(results)
    drawings = pictures(folder, {"plateau": partial(_plateau, results)} if rows else {})
    settings = results.settings
    blocks: list[Block] = [
        *drawings, f"Iterations until the train loss is at most {settings.below:g}, medians over the seeds; "
        f"at most {settings.iterations}. Learning rates: {TUNING_RULE}.", Cells(_HEAD, rows)]
    page = write_page(folder, _TITLE, summary, blocks,
                      Banner("Interrupted.", "Depths, methods or seeds are missing."), _headline(results),
                      _WAYS)
    return page, lines([_HEAD, *rows]) if rows else ""


def _headline(results: PlateauResults) -> str:
    """How many seeds of every method left the plateau, at all depths and noises."""
    told = []
    for method in in_order(dict.fromkeys(run.method for run in results.runs)):
        own = [run for run in results.runs if run.method == method]
        left = sum(run.iterations is not None for run in own)
        told.append(f"{style_of(method).label} in {left} of {len(own)}")
    return f"Runs that left the plateau: {', '.join(told)}." if told else ""


def _rows(results: PlateauResults) -> list[list[str]]:
    rows = []
    for one in results.summary()["plateau"]:
        runs = results.of(one["method"], one["layers"], one["noise"])
        span = f"{one['min']:g} to {one['max']:g}" if one["reached"] else NONE
        rows.append([style_of(one["method"]).label, str(one["layers"]), f"{one['noise']:g}",
                     NONE if runs[0].rate is None else f"{runs[0].rate:g}", count(one["median"]), span,
                     f"{one['reached']} of {one['seeds']}"])
    return rows


def _plateau(results: PlateauResults) -> Sketch:
    """A panel a depth: iterations over the noise."""
    depths = list(dict.fromkeys(run.layers for run in results.runs))
    sheet = new_figure(4.0)
    panels = sheet.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    methods = in_order(dict.fromkeys(run.method for run in results.runs))
    for axes, layers in zip(panels, depths, strict=True):
        for place, method in enumerate(methods):
            _draw(axes, results, method, layers, 1.12**place)
        axes.set(xscale="log", yscale="log", xlabel="size of the noise")
        for axis in (axes.xaxis, axes.yaxis):
            log_ticks(axis)
        axes.set_title(f"{layers} layers")
    panels[0].set_ylabel(f"iterations to {results.settings.below:g}")
    legend_below(sheet, methods)
    return Sketch(_TITLE, "Iterations until the loss of Figure 1 (b) has left its plateau, against the size "
                  "of the noise that the controls start from: medians over the seeds, and from the least to "
                  "the greatest that left; crosses above: where the median seed was still there at the "
                  "end.", sheet)


def _draw(axes: Axes, results: PlateauResults, method: str, layers: int, above: float) -> None:
    """above: of the last iteration, where crosses of this method stand."""
    noises = sorted({run.noise for run in results.runs if run.layers == layers and run.method == method})
    found = [reached([run.iterations for run in results.of(method, layers, noise)]) for noise in noises]
    middle, low, high = (np.array([np.nan if one[name] is None else one[name] for one in found], dtype=float)
                         for name in ("median", "min", "max"))
    look = style_of(method).look
    axes.plot(noises, middle, marker="o", markersize=4, **look)
    axes.fill_between(noises, low, high, color=look["color"], alpha=0.15, linewidth=0)
    stayed = np.isnan(middle)
    axes.plot(np.array(noises)[stayed], np.full(stayed.sum(), results.settings.iterations * above),
              marker="x", **look | {"linestyle": "none"})
