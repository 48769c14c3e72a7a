"""Learning rates that are chosen: by a grid search, each rate a run on a seed that no reported run uses, or
by pilots, short runs from the weights and on the batches of the run itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite, log
from typing import TypeVar

from pontryagin.optim.pilot import FoundRate, Pilot, halving
from pontryagin.problem import NonFiniteError
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import Method
from pontryagin.run.progress import Progress
from pontryagin.run.race import Run
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task, horizon_of, run_of, warm_up_of

TUNING_SEED = 1000
"""Far from the seeds 0, 1, ... of reported runs."""
SMOOTHING = 0.9
"""Of the batch losses that are scored: about ten batches."""
PILOT, PILOT_SHARE = 20, 0.01
"""Iterations of the longest pilots: this share of a run, no fewer than these. With five rates all pilots cost
3.25 times that share of a long run; 20 of 300 and of 1,000 iterations were enough (docs/optimizer.md)."""
_AROUND = (0.1, 1 / 3, 1.0, 2.0, 10 / 3)
"""Times the rate of a method that has one alone: of EMSA 0.003 to 0.1."""
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


K = TypeVar("K")


def best(scores: Mapping[K, float]) -> K:
    """The rate (or whatever was tried) with the least score, the first of equal ones."""
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
    run = _short(task, settings, method, TUNING_SEED, rate, settings.tune)
    losses = _losses(run, going_on)
    if losses is None or run.ended != "complete":
        return None if losses is None else inf
    mean, smoothed = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**number))
    return mean_log(smoothed)


def pilot_rates(method: Method) -> tuple[float, ...]:
    """The method's grid, or around its only rate."""
    return method.rates if len(method.rates) > 1 else tuple(
        float(f"{factor * method.rates[0]:.3g}") for factor in _AROUND)


def find(task: Task, settings: RunSettings, method: Method, known: list[Pilot], going_on: Callable[[], bool],
         done: Callable[[Pilot], None]) -> FoundRate | None:
    """The best rate by pilots from the weights and on the batches of the first seed, each with a schedule of
    its own; None as soon as it is not to go on.

    known: the pilots that there are, to which new ones are added; done: told each new one. Raises
    ExperimentError when every rate fails.
    """
    horizon = horizon_of(task, settings)
    before = {(pilot.rate, pilot.iterations): pilot for pilot in known}

    def pilot(rate: float, iterations: int) -> Pilot | None:
        if (rate, iterations) in before:
            return before[rate, iterations]
        run = _short(task, settings, method, settings.seeds[0], rate, iterations)
        losses = _losses(run, going_on)
        if losses is None:
            return None
        failure = "" if run.ended == "complete" else run.ended
        known.append(Pilot(rate, iterations, tuple(losses), run.evaluations, len(losses), run.watch.seconds,
                           failure))
        done(known[-1])
        return known[-1]

    try:
        found = halving(pilot_rates(method), min(horizon, max(PILOT, round(PILOT_SHARE * horizon))), pilot)
    except NonFiniteError as error:
        raise ExperimentError(f"{method.name}: {error}") from error
    return None if found is None else FoundRate(*found, batches=0)


def _short(task: Task, settings: RunSettings, method: Method, seed: int, rate: float, iterations: int) -> Run:
    share = warm_up_of(task, settings) / horizon_of(task, settings)
    return run_of(task, replace(settings, iterations=iterations, limits={}, warm_up=share), method, seed,
                  rate)


def _losses(run: Run, going_on: Callable[[], bool]) -> list[float] | None:
    """Of the batches of a run, to its end; None as soon as it is not to go on."""
    losses = []
    with run.generators():
        while not run.ended:
            if not going_on():
                return None
            record = run.iterate()
            losses += [] if record is None else [record.loss]
    return losses
