"""The spectrum at the zero initialization, and the Hessian's ends along two runs."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pontryagin.papers.saddle.experiment import ADAM_RATE, SaddleResults
from pontryagin.papers.saddle.hessians import negative
from pontryagin.run.figures.canvas import INK, Sketch, legend_below, log_y, new_figure
from pontryagin.run.figures.method_style import style_of

_LABELS = {"adam": f"Adam ({ADAM_RATE:g})", "emsa": "E-MSA"}


def saddle_figure(results: SaddleResults) -> Sketch:
    """Above the densities with the exact eigenvalues as strokes, below loss and curvature along the runs."""
    sheet = new_figure(8.4)
    panels = sheet.subplots(3, 2, height_ratios=[1.5, 1, 1])
    for axes, (name, (values, curve)) in zip(panels[0], results.spectra.items(), strict=False):
        _spectrum(axes, curve.grid.numpy(), curve.density.numpy() * len(values), values.numpy())
        axes.set_title(f"Spectrum at {name}: {negative(values)} of {len(values)} negative")
    methods = list(dict.fromkeys(place.method for place in results.places))
    for column, method in zip(panels[1:].T, methods, strict=False):
        _run(column, [place for place in results.places if place.method == method], method)
    marks = [Line2D([], [], color="#0072B2", label="density by Lanczos quadrature, eigenvalues per unit"),
             Line2D([], [], color=INK, marker="|", linestyle="none", label="all 600 eigenvalues"),
             Line2D([], [], color=INK, label="loss"),
             Line2D([], [], color="#888888", linestyle=(0, (4, 2)), label="gradient norm"),
             Line2D([], [], color="#D55E00", label="- least eigenvalue / greatest")]
    legend_below(sheet, marks, columns=3)
    return Sketch("The saddle beside the zero initialization",
                  "Above: the Hessian of the mean squared error in all 600 controls. Below: loss, gradient "
                  "and the most negative curvature, relative to the largest one, along a run from the poor "
                  "initialization. Where the gradient is small and the curvature negative, a gradient method "
                  "stands beside a saddle.", sheet)


def _spectrum(axes: Axes, grid: np.ndarray, density: np.ndarray, values: np.ndarray) -> None:
    axes.plot(grid, np.maximum(density, 1e-12), color="#0072B2", linewidth=1.5)
    axes.set_xscale("symlog", linthresh=max(1e-2 * float(np.abs(values).max()), 1e-6))
    log_y(axes, [density[density > density.max() * 1e-7]])
    axes.plot(values, np.full(len(values), 0.03), color=INK, marker="|", markersize=8, linestyle="none",
              alpha=0.5, transform=axes.get_xaxis_transform())
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_xlabel("eigenvalue")


def _run(column: np.ndarray, places: list, method: str) -> None:
    iterations = [place.iteration for place in places]
    losses, gradients = [place.loss for place in places], [place.gradient_norm for place in places]
    column[0].plot(iterations, losses, color=INK)
    column[0].plot(iterations, gradients, color="#888888", linestyle=(0, (4, 2)))
    log_y(column[0], [np.array(losses), np.array(gradients)])
    column[0].set_title(f"Along {_LABELS.get(method, style_of(method).label)}")
    ratios = [place.extremes.negative_curvature for place in places]
    column[1].plot(iterations, ratios, color="#D55E00", marker="o", markersize=3)
    column[1].set_ylim(bottom=0)
    column[1].set_xlabel("iteration")
