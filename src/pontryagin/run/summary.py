"""Many seeds in few numbers: medians with their range, and when a target was reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Point:
    """One row of a run: after `iteration` iterations. Losses are means over samples, seconds without
    evaluation."""

    iteration: int
    evaluations: int
    seconds: float
    train_loss: float
    test_loss: float


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def until(runs: Sequence[Sequence[Point]], target: float, axis: str) -> dict[str, Any]:
    """The first `axis` (iteration, evaluations or seconds) at which the train loss is <= target, over the
    runs.

    A run that never gets there counts as infinite; the median is None when half of the runs or more do not.
    """
    values = [next((float(getattr(point, axis)) for point in run if point.train_loss <= target), float("inf"))
              for run in runs]
    finite = [value for value in values if value != float("inf")]
    middle = median(values)
    return {"median": None if middle == float("inf") else middle, "min": min(finite, default=None),
            "max": max(finite, default=None), "reached": len(finite), "seeds": len(values)}


def summarize(runs: Sequence[Sequence[Point]], targets: Sequence[float], rate: float | None) -> dict[str,
                                                                                                     Any]:
    """What summary.json says of a method in a figure: `runs` has the points of each seed, the start first."""
    result: dict[str, Any] = {
        "train_loss": spread([run[-1].train_loss for run in runs]),
        "test_loss": spread([run[-1].test_loss for run in runs]),
    }
    for name, axis in (("iterations_to", "iteration"), ("evaluations_to", "evaluations"),
                       ("seconds_to", "seconds")):
        result[name] = {f"{target:g}": until(runs, target, axis) for target in targets}
    steps = [run[-1].seconds / run[-1].iteration for run in runs if run[-1].iteration]
    return result | {"seconds_per_iteration": median(steps) if steps else None, "learning_rate": rate,
                     "iterations": max(run[-1].iteration for run in runs)}
