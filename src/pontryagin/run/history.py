"""What has been measured so far, of every job, and in few numbers."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from pontryagin.run.job import Job, Point
from pontryagin.run.summary import Point as LossPoint
from pontryagin.run.summary import spread, summarize

COLUMNS = ("figure", "method", "seed", "iteration", "evaluations", "seconds", "train_loss", "test_loss",
           "accepted", "rho",
           "optimality_gap", "rejected", "epoch", "train_accuracy", "test_accuracy", "batch_loss")
LOSSES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4)
ACCURACIES = (0.9, 0.95, 0.97, 0.98, 0.985, 0.99)


@dataclass(frozen=True)
class Measured:
    """An evaluation of a job."""

    iteration: int
    evaluations: int
    seconds: float
    train_loss: float
    test_loss: float
    train_accuracy: float | None
    test_accuracy: float | None


def row(figure: str, job: Job, point: Point) -> tuple[Any, ...]:
    """Of metrics.csv, in the order of COLUMNS."""
    step, train, test = point.step, point.train, point.test
    diagnostics = (None,) * 4 if step is None else (step.accepted, step.rho, step.optimality_gap,
                                                    step.rejected)
    return (figure, job.method.name, job.seed, point.iteration, point.evaluations, point.seconds,
            train and train.loss, test and test.loss, *diagnostics, point.epoch, train and train.accuracy,
            test and test.accuracy, step and step.loss)


@dataclass
class History:
    """The evaluations by method and seed."""

    runs: dict[str, dict[int, list[Measured]]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, list[str]] = field(default_factory=dict)

    def add(self, method: str, seed: int, measured: Measured) -> None:
        """In the order of iterations."""
        self.runs.setdefault(method, {}).setdefault(seed, []).append(measured)

    def take(self, job: Job, point: Point) -> None:
        """A point, if it was evaluated."""
        if point.train is not None and point.test is not None:
            self.add(job.method.name, job.seed,
                     Measured(point.iteration, point.evaluations, point.seconds, point.train.loss,
                                                         point.test.loss, point.train.accuracy,
                              point.test.accuracy))

    def read(self, path: Path) -> None:
        """From the metrics.csv of a run that is resumed."""
        with path.open(encoding="utf-8", newline="") as file:
            for cells in csv.DictReader(file):
                if cells["train_loss"]:
                    self.add(cells["method"], int(cells["seed"]), Measured(
                        int(cells["iteration"]), int(cells["evaluations"]), float(cells["seconds"]),
                        float(cells["train_loss"]), float(cells["test_loss"]),
                        _number(cells["train_accuracy"]), _number(cells["test_accuracy"])))

    def results(self, batch_size: int) -> dict[str, dict[str, Any]]:
        """By method, over its seeds: as the sine's, with accuracies, when they were reached, and samples per
        second."""
        return {method: self._result(list(seeds.values()), self.rates.get(method), batch_size)
                for method, seeds in self.runs.items()}

    def _result(self, runs: list[list[Measured]], rate: float | None, batch_size: int) -> dict[str, Any]:
        points = [[LossPoint(one.iteration, one.evaluations, one.seconds, one.train_loss, one.test_loss)
                   for one in run]
                  for run in runs]
        lowest = min((point.train_loss for run in points for point in run if isfinite(point.train_loss)),
                     default=0.0)
        result = summarize(points, [target for target in LOSSES if target >= lowest], rate)
        seconds = result["seconds_per_iteration"]
        result["samples_per_second"] = batch_size / seconds if seconds else None
        if runs[0][-1].test_accuracy is None:
            return result
        for name in ("train_accuracy", "test_accuracy"):
            result[name] = spread([getattr(run[-1], name) for run in runs])
        result["best_test_accuracy"] = spread([max(one.test_accuracy or 0.0 for one in run) for run in runs])
        result["accuracy_to"] = {f"{target:g}": _reach(runs, target) for target in ACCURACIES}
        return result


def sentences(results: dict[str, dict[str, Any]]) -> list[str]:
    """Of results by figure and method: what each method reached, after how much work."""
    told = []
    for method, result in ((method, result) for methods in results.values()
                           for method, result in methods.items()):
        reached = [f"test accuracy {percent(result['test_accuracy']['median'])}"] if "test_accuracy" in result else []
        reached += [f"{part} loss {_shown(result[f'{part}_loss']['median'])}" for part in ("train", "test")]
        seconds, speed = result["iterations"] * (result["seconds_per_iteration"]
                                                 or 0.0), result["samples_per_second"]
        told.append(f"{method}: {', '.join(reached)} after {result['iterations']:,} iterations, "
                    f"{seconds:.3g} s of training"
                    + (f" ({speed:,.0f} samples/s)" if speed else "") + ".")
    return told


def _shown(loss: float | None) -> str:
    """summary.json has null for what is not finite."""
    return f"{loss:.3g}" if loss is not None and isfinite(loss) else "not finite"


def percent(share: float) -> str:
    """0.98765 as 98.77 %."""
    return f"{100 * share:.2f} %"


def _reach(runs: Sequence[Sequence[Measured]], target: float) -> dict[str, Any]:
    """Median iterations and seconds to a test accuracy, null when half of the seeds or more did not get
    there."""
    found = [next((one for one in run if (one.test_accuracy or 0.0) >= target), None) for run in runs]
    there = [one for one in found if one is not None]
    if 2 * len(there) <= len(found):
        return {"iterations": None, "seconds": None, "reached": len(there), "seeds": len(found)}
    missing = [float("inf")] * (len(found) - len(there))
    return {"iterations": median([float(one.iteration) for one in there] + missing),
            "seconds": median([one.seconds for one in there] + missing), "reached": len(there),
            "seeds": len(found)}


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
