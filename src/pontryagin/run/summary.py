"""Many seeds in few numbers: medians with their range, and when a target was reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A run after `iteration` iterations. Losses are means over samples, seconds without evaluation;
    accuracies: None where nothing is classified, as all else that is not there."""

    iteration: int
    evaluations: int
    seconds: float
    train_loss: float
    test_loss: float
    train_accuracy: float | None = None
    test_accuracy: float | None = None
    test_metric: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_metric: float | None = None


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def reached(values: Sequence[float | None]) -> dict[str, Any]:
    """What it took each seed to reach something, None for one that did not and counts as infinite.

    Median (None when half of the seeds or more did not), least and largest of those that did, their number
    and that of all seeds.
    """
    found = [value for value in values if value is not None]
    middle = median([*found, *[inf] * (len(values) - len(found))]) if values else inf
    return {"median": middle if middle < inf else None, "min": min(found, default=None),
            "max": max(found, default=None), "reached": len(found), "seeds": len(values)}


def until(runs: Sequence[Sequence[Measured]], target: float, axis: str) -> dict[str, Any]:
    """See `reached`: the first `axis` (iteration, evaluations or seconds) at which the train loss of each run
    is <= target."""
    return reached([next((float(getattr(point, axis)) for point in run if point.train_loss <= target), None)
                    for run in runs])


def summarize(runs: Sequence[Sequence[Measured]], targets: Sequence[float],
              rate: float | None) -> dict[str, Any]:
    """What summary.json says of a method in a figure: `runs` has the points of each seed, the start first."""
    result: dict[str, Any] = {name: over_seeds([getattr(run[-1], name) for run in runs])
                              for name in ("train_loss", "test_loss")}
    for name, axis in (("iterations_to", "iteration"), ("evaluations_to", "evaluations"),
                       ("seconds_to", "seconds")):
        result[name] = {f"{target:g}": until(runs, target, axis) for target in targets}
    steps = [run[-1].seconds / run[-1].iteration for run in runs if run[-1].iteration]
    return result | {"seconds_per_iteration": median(steps) if steps else None, "learning_rate": rate,
                     "iterations": max(run[-1].iteration for run in runs)}


def summarize_training(runs: Sequence[Sequence[Measured]], rate: float | None,
                       batch_size: int) -> dict[str, Any]:
    """The same of a training, at LOSSES; with samples per second, and accuracies and when they were reached
    where classes are told."""
    lowest = min((point.train_loss for run in runs for point in run if isfinite(point.train_loss)),
                 default=0.0)
    result = summarize(runs, [target for target in LOSSES if target >= lowest], rate)
    seconds = result["seconds_per_iteration"]
    result["samples_per_second"] = batch_size / seconds if seconds else None
    result["start_test_loss"] = median(run[0].test_loss for run in runs)
    for name in ("test_metric", "validation_loss", "validation_accuracy", "validation_metric"):
        values = [getattr(run[-1], name) for run in runs]
        if None not in values:
            result[name] = over_seeds(values)
    if runs[0][-1].test_accuracy is None:
        return result
    for name in ("train_accuracy", "test_accuracy"):
        result[name] = over_seeds([getattr(run[-1], name) for run in runs])
    result["best_test_accuracy"] = over_seeds([max(one.test_accuracy or 0.0 for one in run) for run in runs])
    result["accuracy_to"] = {f"{target:g}": _accurate(runs, target) for target in ACCURACIES}
    return result


LOSSES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4)
"""About two a decade, down to where float32 losses lie flat."""
ACCURACIES = (0.9, 0.95, 0.97, 0.98, 0.985, 0.99)
"""What networks on images of digits and clothes pass on their way."""


def _accurate(runs: Sequence[Sequence[Measured]], target: float) -> dict[str, Any]:
    """Median iterations and seconds to a test accuracy."""
    found = [next((one for one in run if (one.test_accuracy or 0.0) >= target), None) for run in runs]
    iterations, seconds = (reached([None if one is None else float(getattr(one, axis)) for one in found])
                           for axis in ("iteration", "seconds"))
    return {"iterations": iterations["median"], "seconds": seconds["median"],
            "reached": iterations["reached"],
            "seeds": iterations["seeds"]}
