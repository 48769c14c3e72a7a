"""The grid search of learning rates: each rate gets one run, on a seed that no reported run uses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite, log

from pontryagin.run.methods import Method
from pontryagin.run.progress import Progress
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task, run_of

TUNING_SEED = 1000
"""Far from the seeds 0, 1, ... of reported runs."""
SMOOTHING = 0.9
"""Of the batch losses that are scored: about ten batches."""
RULE = ("the rate with the least mean of log(smoothed batch loss) over a run of its own seed and of that "
        "length")


def search(rates: Sequence[float], score: Callable[[float], float | None], known: dict[float, float],
           found: Callable[[float, float], None] = lambda rate, score: None) -> bool:
    """Put the score of every rate that `known` lacks into it, smaller is better.

    score: of one rate, None when it was interrupted, which ends the search. found: told each new rate and its
    score. Returns whether all are known.
    """
    for rate in rates:
        if rate not in known:
            value = score(rate)
            if value is None:
                return False
            known[rate] = value
            found(rate, value)
    return True


def tuned(rates: Sequence[float], score: Callable[[float], float], progress: Progress,
          title: str) -> dict[float, float]:
    """The score of every rate, and how far that is."""
    scores: dict[float, float] = {}
    with progress.task(title, len(rates)) as advance:
        search(rates, score, scores, lambda rate, value: advance(len(scores), None))
    return scores


def best(scores: Mapping[float, float]) -> float:
    """The rate with the least score, the first of equal ones."""
    return min(scores, key=scores.__getitem__)


def mean_log(losses: Sequence[float]) -> float:
    """The mean of log(loss) over a run, which rewards both falling early and ending low; infinite when a loss
    is not finite or not positive."""
    if not losses or not all(isfinite(loss) and loss > 0 for loss in losses):
        return inf
    return sum(map(log, losses)) / len(losses)


def score_training(task: Task, settings: RunSettings, method: Method, rate: float,
                   going_on: Callable[[], bool] = lambda: True) -> float | None:
    """Of a run of settings.tune iterations: `mean_log` of its smoothed batch losses; infinite when it stopped
    early, None as soon as it is not to go on."""
    short = replace(settings, iterations=settings.tune, limits={})
    run, mean, smoothed = run_of(task, short, method, TUNING_SEED, rate), 0.0, []
    with run.generators():
        while not run.ended:
            if not going_on():
                return None
            record = run.iterate()
            if record is None:
                return inf
            mean = SMOOTHING * mean + (1 - SMOOTHING) * record.loss
            smoothed.append(mean / (1 - SMOOTHING**run.iteration))
            if not (isfinite(smoothed[-1]) and smoothed[-1] > 0):
                return inf
    return mean_log(smoothed)
