"""report.html of `reproduce saddle`: the spectrum at the zero initialization, and the Hessian's ends along
two runs."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from pontryagin.papers.saddle.experiment import ADAM_RATE, SaddleResults, negative
from pontryagin.run.figures.canvas import INK, entry, legend_below, log_y, new_figure, plain
from pontryagin.run.figures.method_style import BLUE, RED, style_of
from pontryagin.run.reports.page import Banner, Cells, pictures, write_page
from pontryagin.run.reports.words import number
from pontryagin.run.tables import Sketch

_TITLE = "The saddle beside the zero initialization"
_WAYS = (("How many iterations each method needs to leave it, by noise and depth:",
          "pontryagin reproduce plateau --quick"),
         ("The whole of Figure 1:", "pontryagin reproduce sine --quick"))
_HEAD = ("method", "iteration", "loss", "gradient norm", "least eigenvalue", "greatest eigenvalue")
_LABELS = {"adam": f"Adam ({ADAM_RATE:g})", "emsa": "E-MSA"}
_GRADIENT: dict[str, Any] = {"color": "#888888", "linestyle": (0, (4, 2))}


def write_report(folder: Path, results: SaddleResults) -> tuple[Path, str]:
    """The figure and report.html, beside the run's summary.json; returns its path and the ends of the spectra
    as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    lines = [f"{name}: eigenvalues from {float(values[0]):.4g} to {float(values[-1]):.4g}, "
             f"{negative(values)} of "
             f"{len(values)} negative" for name, (values, _) in results.spectra.items()]
    rows = [[style_of(place.method).label, str(place.row[1]), *map(number, place.row[2:])]
            for place in results.places]
    told = [f"at {name} {negative(values)} of {len(values)}"
            for name, (values, _) in results.spectra.items()]
    drawings = pictures(folder, {"saddle": partial(_saddle, results)} if results.spectra else {})
    return write_page(folder, _TITLE, summary,
                      [*drawings, *(f"{line}." for line in lines), Cells(_HEAD, rows, names=1)],
                      Banner("Interrupted.", "Places along the runs are missing."),
                      f"Negative eigenvalues of the Hessian: {', '.join(told)}." if told else "",
                      _WAYS), "\n".join(lines)


def _saddle(results: SaddleResults) -> Sketch:
    """Above the densities with the exact eigenvalues as strokes, below loss and curvature along the runs."""
    sheet = new_figure(8.4)
    panels = sheet.subplots(3, 2, height_ratios=[1.5, 1, 1])
    for axes, (name, (values, curve)) in zip(panels[0], results.spectra.items(), strict=False):
        _spectrum(axes, curve.grid.numpy(), curve.density.numpy() * len(values), values.numpy())
        axes.set_title(f"Spectrum at {name}: {negative(values)} of {len(values)} negative")
    methods = list(dict.fromkeys(place.method for place in results.places))
    for column, method in zip(panels[1:].T, methods, strict=False):
        _run(column, [place for place in results.places if place.method == method], method)
    for axes in panels[1:, len(methods):].flat:
        axes.set_visible(False)
    legend_below(sheet, [entry("density by Lanczos quadrature, eigenvalues per unit", BLUE),
                         entry("all 600 eigenvalues", INK, "|"), entry("loss", INK),
                         entry("gradient norm", **_GRADIENT), entry("- least eigenvalue / greatest", RED)],
                 columns=3)
    return Sketch(_TITLE,
                  "Above: the Hessian of the mean squared error in all 600 controls. Below: loss, gradient "
                          "and the most negative curvature, relative to the largest one, along a run from "
                          "the poor initialization. Where the gradient is small and the curvature negative, "
                          "a gradient method stands beside a saddle.", sheet)


def _spectrum(axes: Axes, grid: np.ndarray, density: np.ndarray, values: np.ndarray) -> None:
    axes.plot(grid, np.maximum(density, 1e-12), color=BLUE, linewidth=1.5)
    greatest = float(np.abs(values).max())
    axes.set_xscale("symlog", linthresh=max(1e-2 * greatest, 1e-6))
    powers = [10.0**power for power in range(-6, 9) if 2e-2 * greatest < 10.0**power <= 2 * greatest]
    axes.set_xticks([*(-power for power in reversed(powers)), 0, *powers])
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.xaxis.set_minor_locator(NullLocator())
    log_y(axes, [density[density > density.max() * 1e-7]])
    axes.plot(values, np.full(len(values), 0.03), color=INK, marker="|", markersize=8, linestyle="none",
              alpha=0.5, transform=axes.get_xaxis_transform())
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_xlabel("eigenvalue")


def _run(column: np.ndarray, places: list, method: str) -> None:
    iterations = [place.iteration for place in places]
    losses, gradients = [place.loss for place in places], [place.gradient_norm for place in places]
    column[0].plot(iterations, losses, color=INK, label="loss")
    column[0].plot(iterations, gradients, label="gradient norm", **_GRADIENT)
    log_y(column[0], [np.array(losses), np.array(gradients)])
    column[0].set_title(f"Along {_LABELS.get(method, style_of(method).label)}")
    ratios = [place.extremes.negative_curvature for place in places]
    column[1].plot(iterations, ratios, color=RED, marker="o", markersize=3, label="curvature ratio")
    column[1].set_ylim(bottom=0)
    name = _LABELS.get(method, style_of(method).label)
    column[1].set_title(f"{name}: most negative curvature over the largest")
    column[1].set_xlabel("iteration")
