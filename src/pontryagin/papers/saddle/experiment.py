"""`pontryagin reproduce saddle`: the Hessian's spectrum at the zero initialization, and its ends along two
runs."""

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from pontryagin.diagnostics import Density
from pontryagin.papers.saddle.hessians import Place, along, negative, place, spectrum, zeros
from pontryagin.papers.sine.task import SineTask
from pontryagin.run.environment import machine, threads, versions
from pontryagin.run.errors import ExperimentError, need
from pontryagin.run.files import Table, prepare, write_json
from pontryagin.run.progress import Progress

CURVATURE = ("method", "iteration", "loss", "gradient_norm", "least", "greatest")
EIGENVALUES = ("at", "index", "eigenvalue")
DENSITY = ("at", "eigenvalue", "density")
ADAM_RATE = 1e-2
"""Slow enough for its plateau to be seen: the paper's Adam stays there for 3000 iterations."""
LENGTHS = {"adam": 1200, "emsa": 40}


@dataclass(frozen=True)
class SaddleSettings:
    """What `reproduce saddle` takes. places: Hessians along each of the two runs."""

    out: Path = Path("runs/saddle")
    seed: int = 0
    places: int = 25
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.places < 2:
            raise ExperimentError(f"--places: expected a number >= 2, found {self.places}")
        if self.seed < 0:
            raise ExperimentError(f"--seed: expected a number >= 0, found {self.seed}")


@dataclass
class SaddleResults:
    """What has been found so far."""

    spectra: dict[str, tuple[Tensor, Density]]
    places: list[Place]


def run_saddle(settings: SaddleSettings, command: str, progress: Progress) -> tuple[Path, SaddleResults,
                                                                                    bool]:
    """Write eigenvalues.csv, density.csv, curvature.csv and summary.json into settings.out.

    Returns the folder, the results and whether the run was interrupted (Ctrl-C). Raises ExperimentError
    before any work.
    """
    need("scipy", "reproduce saddle")
    out, task = prepare(settings.out, settings.overwrite), SineTask("b", settings.seed)
    results, interrupted = SaddleResults({}, []), False
    write_json(out / "summary.json", _summary(settings, command, results, True))
    with threads(1), Table(out / "eigenvalues.csv", EIGENVALUES) as eigenvalues, \
            Table(out / "density.csv", DENSITY) as density, Table(out / "curvature.csv",
                                                                  CURVATURE) as curvature:
        try:
            with progress.task("spectra at zeros and at the start of (b)", 2) as advance:
                for number, (name, theta) in enumerate((("zeros", zeros()), ("start of (b)", task.start())),
                                                       1):
                    values, curve = results.spectra[name] = spectrum(task, theta)
                    eigenvalues.add_all((name, index, value) for index, value in enumerate(values.tolist()))
                    density.add_all((name, *pair)
                                    for pair in zip(curve.grid.tolist(), curve.density.tolist(), strict=True))
                    advance(number, None)
            for method, length in LENGTHS.items():
                every = max(1, length // (settings.places - 1))
                found = along(task, method, length, ADAM_RATE, lambda k, every=every: k % every == 0)  # type: ignore[misc]
                with progress.task(f"Hessians along {method}", len(found)) as advance:
                    for number, (iteration, theta) in enumerate(found, 1):
                        results.places.append(place(task, method, iteration, theta))
                        curvature.add(*results.places[-1].row)
                        advance(number, results.places[-1].loss)
        except KeyboardInterrupt:
            interrupted = True
    write_json(out / "summary.json", _summary(settings, command, results, interrupted))
    return out, results, interrupted


def _summary(settings: SaddleSettings, command: str, results: SaddleResults, interrupted: bool) -> dict:
    spectra = {name: {"least": values[:5].tolist(), "greatest": values[-5:].tolist(),
                      "negative": negative(values),
                      "parameters": len(values)} for name, (values, _) in results.spectra.items()}
    return {"experiment": "saddle", "command": command, "interrupted": interrupted,
            "settings": asdict(settings) | {"out": str(settings.out)}, "adam_rate": ADAM_RATE,
            "iterations": LENGTHS,
            "spectra": spectra, "versions": versions(), "machine": machine()}
