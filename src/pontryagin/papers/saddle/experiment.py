"""`pontryagin reproduce saddle`: the Hessian's spectrum at the zero initialization, and its ends along two
runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pontryagin.diagnostics import Density
from pontryagin.papers.saddle.hessians import Place, along, negative, place, spectrum, zeros
from pontryagin.papers.sine.task import SineTask
from pontryagin.run.errors import at_least, need
from pontryagin.run.progress import Progress
from pontryagin.run.study import Study, study

TABLES = {"eigenvalues": ("at", "index", "eigenvalue"), "density": ("at", "eigenvalue", "density"),
          "curvature": ("method", "iteration", "loss", "gradient_norm", "least", "greatest")}
ADAM_RATE = 1e-2
"""Slow enough for its plateau to be seen: the paper's Adam stays there for 3000 iterations."""
LENGTHS = {"adam": 1200, "emsa": 40}
"""Iterations of each run."""


@dataclass(frozen=True)
class SaddleSettings:
    """What `reproduce saddle` takes. places: Hessians along each of the two runs."""

    out: Path = Path("runs/saddle")
    seed: int = 0
    places: int = 25
    overwrite: bool = False

    def __post_init__(self) -> None:
        at_least(2, places=self.places)
        at_least(0, seed=self.seed)


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
