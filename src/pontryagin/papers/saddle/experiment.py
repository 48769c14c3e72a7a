"""`pontryagin reproduce saddle`: the Hessian's spectrum at the zero initialization, and its ends along two
runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pontryagin.diagnostics import (
    Density,
    Extremes,
    HessianOperator,
    extreme_eigenvalues,
    problem_hessian,
    spectral_density,
)
from pontryagin.papers.sine.methods import METHODS
from pontryagin.papers.sine.setup import SineSetup
from pontryagin.papers.sine.task import SineTask, Theta
from pontryagin.run.errors import need
from pontryagin.run.option import LAST_SEED, check_numbers, option
from pontryagin.run.progress import Progress
from pontryagin.run.study import Study, study

TABLES = {"eigenvalues": ("at", "index", "eigenvalue"), "density": ("at", "eigenvalue", "density"),
          "curvature": ("method", "iteration", "loss", "gradient_norm", "least", "greatest")}
ADAM_RATE = 1e-2
"""Slow enough for its plateau to be seen: the paper's Adam stays there for 3000 iterations."""
LENGTHS = {"adam": 1200, "emsa": 40}
"""Iterations of each run."""
COUNT = 5
"""Eigenvalues at each end."""


@dataclass(frozen=True)
class SaddleSettings:
    """The Hessian of the sine problem in all 600 controls, at zeros and at the poor initialization: its whole
    spectrum, and the density by Lanczos quadrature; then its extreme eigenvalues along a run of Adam and of
    E-MSA. Writes eigenvalues.csv, density.csv, curvature.csv, summary.json, a figure and report.html.
    """

    out: Path = option("folder for the results, new or empty", Path("runs/saddle"))
    seed: int = option("of data and initial noise", 0, least=0, most=LAST_SEED)
    places: int = option("Hessians along each of the two runs", 25, least=2, most=LENGTHS["emsa"])
    overwrite: bool = option("replace the run that is in the folder", False)

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class Place:
    """The Hessian at some controls."""

    method: str
    iteration: int
    loss: float
    gradient_norm: float
    extremes: Extremes

    @property
    def row(self) -> tuple[str, int, float, float, float, float]:
        """A row of curvature.csv."""
        return (self.method, self.iteration, self.loss, self.gradient_norm, float(self.extremes.lowest[0]),
                float(self.extremes.highest[-1]))


@dataclass
class SaddleResults:
    """What has been found so far."""

    spectra: dict[str, tuple[Tensor, Density]]
    places: list[Place]

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        spectra = {name: {"least": values[:5].tolist(), "greatest": values[-5:].tolist(),
                          "negative": negative(values), "parameters": len(values)}
                   for name, (values, _) in self.spectra.items()}
        return {"adam_rate": ADAM_RATE, "iterations": LENGTHS, "spectra": spectra}


def run_saddle(settings: SaddleSettings, command: str,
               progress: Progress) -> tuple[Path, SaddleResults, bool]:
    """Write eigenvalues.csv, density.csv, curvature.csv and summary.json into settings.out.

    Returns the folder, the results and whether the run was interrupted (Ctrl-C). Raises ExperimentError
    before any work.
    """
    need("scipy", "reproduce saddle")
    task, results = SineTask("b", settings.seed), SaddleResults({}, [])
    with study("saddle", settings, command, TABLES, results.summary) as running:
        _spectra(task, results, running, progress)
        for method, length in LENGTHS.items():
            every = max(1, length // (settings.places - 1))
            found = along(task, method, length, ADAM_RATE, lambda k: k % every == 0)  # noqa: B023
            with progress.task(f"Hessians along {method}", len(found)) as advance:
                for number, (iteration, theta) in enumerate(found, 1):
                    results.places.append(place(task, method, iteration, theta))
                    running.tables["curvature"].add(*results.places[-1].row)
                    advance(number, results.places[-1].loss)
    return running.out, results, running.interrupted


def _spectra(task: SineTask, results: SaddleResults, running: Study, progress: Progress) -> None:
    with progress.task("spectra at zeros and at the start of (b)", 2) as advance:
        for number, (name, theta) in enumerate((("zeros", zeros()), ("start of (b)", task.start())), 1):
            values, curve = results.spectra[name] = spectrum(task, theta)
            running.tables["eigenvalues"].add_all(
                (name, index, value) for index, value in enumerate(values.tolist()))
            running.tables["density"].add_all(
                (name, *pair) for pair in zip(curve.grid.tolist(), curve.density.tolist(), strict=True))
            advance(number, None)


def zeros() -> Theta:
    """W = b = 0 in every layer."""
    return torch.zeros(SineSetup().layers, SineSetup().entries, dtype=torch.float64)


def hessian_at(task: SineTask, theta: Theta) -> HessianOperator:
    """Of the mean squared error over the task's 1000 samples, in all 600 controls."""
    return problem_hessian(task.problem(), list(theta.unbind()))


def place(task: SineTask, method: str, iteration: int, theta: Theta) -> Place:
    """Loss, gradient and extreme eigenvalues."""
    hessian = hessian_at(task, theta)
    return Place(method, iteration, task.loss(theta).item(), hessian.gradient_norm,
                 extreme_eigenvalues(hessian, COUNT))


def spectrum(task: SineTask, theta: Theta) -> tuple[Tensor, Density]:
    """All 600 eigenvalues from the dense matrix, and the density from Lanczos quadrature, which needs no
    matrix."""
    hessian = hessian_at(task, theta)
    return torch.linalg.eigvalsh(hessian.dense()), spectral_density(hessian)


def negative(values: Tensor) -> int:
    """How many eigenvalues are below zero by more than rounding, 1e-9 of the largest."""
    return int((values < -1e-9 * values.abs().max()).sum())


def along(task: SineTask, method: str, iterations: int, rate: float, chosen: Callable[[int], bool]
          ) -> list[tuple[int, Theta]]:
    """The controls of a run of a method of the sine at the chosen iterations, from the initial ones
    (iteration 0)."""
    seen = [task.start()]

    def observe(theta: Theta, evaluations: int, record: object) -> bool:
        seen.append(theta)
        return True

    METHODS[method].run(task, iterations, rate, observe)
    return [(number, theta) for number, theta in enumerate(seen) if number == 0 or chosen(number)]
