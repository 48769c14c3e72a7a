"""Learning rates chosen on the grid of each method, on a seed that no reported run uses."""

from collections.abc import Callable
from dataclasses import replace
from math import isfinite, log

from pontryagin.run.job import Job
from pontryagin.run.methods import Method
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task

TUNING_SEED = 1000
SMOOTHING = 0.9
RULE = "the rate with the least mean of log(smoothed batch loss) over a run of its own seed and of that length"


def score(task: Task, settings: RunSettings, method: Method, rate: float,
          going_on: Callable[[], bool]) -> float | None:
    """Of one rate, smaller is better; infinite when the run stopped early, None when it was interrupted."""
    short = replace(settings, iterations=settings.tune, evaluations=1, limits={}, target_accuracy=None,
                    target_loss=None)
    job = Job(task, short, method, TUNING_SEED, rate)
    mean, logs = 0.0, []
    while not job.ended:
        if not going_on():
            return None
        record = job.iterate()
        if record is None:
            return float("inf")
        mean = SMOOTHING * mean + (1 - SMOOTHING) * record.loss
        smoothed = mean / (1 - SMOOTHING**job.iteration)
        if not (isfinite(smoothed) and smoothed > 0):
            return float("inf")
        logs.append(log(smoothed))
    return sum(logs) / len(logs)
