"""`pontryagin bench optimizers`: cost, memory and time to targets of every optimizer, in one run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from pontryagin.bench.memory import peak_growth
from pontryagin.bench.racers import METHODS, Racer, run_race
from pontryagin.bench.tasks import Task, make
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import Method, choose
from pontryagin.run.option import MOST_THREADS, SEEDS, Seeds, check_numbers, option, seed_numbers
from pontryagin.run.progress import Progress
from pontryagin.run.study import study
from pontryagin.run.summary import reached
from pontryagin.run.tuning import TUNING_SEED, best, mean_log

COLUMNS = ("method", "learning_rate", "seed", "iteration", "seconds", "train_loss", "score")
SCORE_EVERY = 10
"""Iterations between scores on held-out data, which cost more than an iteration."""
REFERENCE = "adam"


@dataclass(frozen=True)
class BenchSettings:
    """EMSA beside Adam, plain and with the averages of EMSA, AdamW, schedule-free AdamW, SGD with momentum,
    Muon, SOAP
    and Shampoo: cost of an iteration, peak memory, iterations and seconds to targets. The methods run side by
    side, an iteration each in turn, on equal weights and batches.
    """

    task: str = option("cnn (the paper's), mlp, autoencoder or transformer", "cnn")
    data: str = option("digits, mnist or fashion-mnist", "digits")
    folder: Path | None = option("of the IDX files (or PONTRYAGIN_DATA)", None)
    methods: tuple[str, ...] | None = option(f"all, or names with commas: {', '.join(METHODS)}", None)
    seeds: Seeds = option(SEEDS, 3)
    iterations: int | None = option("horizon of every run; by default the task's", None, least=1)
    tune: int = option("iterations of a tuning run at every rate of a grid; 0: no tuning", 150, least=0)
    threads: int = option("of torch", 1, least=1, most=MOST_THREADS)
    out: Path = option("folder for the results, new or empty", Path("runs/bench"))
    overwrite: bool = option("replace the run that is in the folder", False)

    def __post_init__(self) -> None:
        check_numbers(self)
        seed_numbers(self.seeds)
        choose(self.methods, METHODS)


def run_bench(settings: BenchSettings, command: str, progress: Progress) -> tuple[Path, bool]:
    """Write metrics.csv and summary.json into settings.out. Returns the folder and whether Ctrl-C ended the
    run early."""
    task = make(settings.task, settings.data, settings.folder)
    methods = available(task, choose(settings.methods, METHODS), progress)
    iterations = settings.iterations or task.iterations
    settings = replace(settings, iterations=iterations)
    finished: list[list[Racer]] = []
    memory: dict[str, int | None] = {}
    tuning: dict[str, dict[float, float]] = {}

    def found() -> dict[str, Any]:
        return {"schedule": "the learning rate falls linearly to zero over the run, for every method but the "
                            "schedule-free one",
                "tuning_rule": f"least mean log(train loss) over {settings.tune} iterations of a run of "
                               "its own seed",
                "tuning": tuning, "score": task.score_name,
                "results": summarize(task, finished, memory) if finished else {}}

    with study("bench", settings, command, {"metrics": COLUMNS}, found, settings.threads) as running:
        _measure_memory(settings, methods, progress, memory)
        _tune(task, methods, settings.tune, progress, tuning)
        for seed in seed_numbers(settings.seeds):
            racers = [Racer(task, method, _rate(method, tuning), seed, iterations) for method in methods]
            with progress.task(f"{task.name}: {len(methods)} optimizers, seed {seed}", iterations) as advance:
                run_race(task, racers, SCORE_EVERY, advance)
            finished.append(racers)
            for one in racers:
                running.tables["metrics"].add_all(
                    (one.method.name, one.rate, seed, number, seconds, one.losses.get(number),
                     one.scores.get(number)) for number, seconds in enumerate(one.seconds, 1))
            running.save()
    return running.out, running.interrupted


def available(task: Task, methods: Sequence[Method], progress: Progress) -> list[Method]:
    """Those whose package is there; a missing one is named, not skipped in silence."""
    result = []
    for method in methods:
        try:
            method.trainer(task.build(), task.objective)
        except ExperimentError as error:
            progress.say(f"without {method.name}: {error}")
        else:
            result.append(method)
    return result


def _measure_memory(settings: BenchSettings, methods: Sequence[Method], progress: Progress,
                    found: dict[str, int | None]) -> None:
    with progress.task("peak memory", len(methods)) as advance:
        for number, method in enumerate(methods, 1):
            found[method.name] = peak_growth(settings.task, settings.data, settings.folder, method.name)
            advance(number, None)


def _tune(task: Task, methods: Sequence[Method], iterations: int, progress: Progress,
          found: dict[str, dict[float, float]]) -> None:
    """Every rate of every method with more than one, side by side on a seed that no reported run uses."""
    for method in methods:
        if len(method.rates) > 1 and iterations:
            racers = [Racer(task, method, rate, TUNING_SEED, iterations) for rate in method.rates]
            with progress.task(f"{method.name}: choosing the learning rate", iterations) as advance:
                run_race(task, racers, 0, advance)
            found[method.name] = {one.rate: badness(one) for one in racers}


def badness(one: Racer) -> float:
    """What tuning minimizes: the mean of log(train loss) over the run; infinite if it stopped early."""
    return inf if one.stopped else mean_log(list(one.losses.values()))


def _rate(method: Method, tuning: Mapping[str, Mapping[float, float]]) -> float:
    return best(tuning[method.name]) if method.name in tuning else method.rates[0]


def summarize(task: Task, finished: Sequence[Sequence[Racer]], memory: Mapping[str, int | None]) -> dict[str,
                                                                                                         Any]:
    """By method. Ratios are to Adam's tuned run of the same seed: below 1 is cheaper or sooner."""
    results: dict[str, Any] = {}
    rivals = [next((one for one in racers if one.method.name == REFERENCE), None) for racers in finished]
    for position, first in enumerate(finished[0]):
        runs = [racers[position] for racers in finished]
        pairs = list(zip(runs, rivals, strict=True))
        results[first.method.name] = {
            "learning_rate": first.rate,
            "stopped": [run.stopped for run in runs if run.stopped],
            "train_loss": reached([run.losses[max(run.losses)] for run in runs if run.losses]),
            "score": reached([run.scores[max(run.scores)] for run in runs if run.scores]),
            "cost": reached([_ratio(_cost(run), _cost(rival)) for run, rival in pairs]),
            "memory": _ratio(memory.get(first.method.name), memory.get(REFERENCE)),
            "seconds_per_iteration": reached([_cost(run) for run in runs]),
            "to_loss": {f"{target:g}": _reach(pairs, lambda run: run.losses, lambda loss: loss <= target)  # noqa: B023
                        for target in task.losses},
            "to_score": {f"{target:g}": _reach(pairs, lambda run: run.scores, lambda score: score >= target)  # noqa: B023
                         for target in task.scores},
            "loss_when_adam_ends": reached([_loss_at(run, rival) for run, rival in pairs]),
        }
    return results


def _reach(pairs: Sequence[tuple[Racer, Racer | None]], measured: Callable[[Racer], Mapping[int, float]],
           good: Callable[[float], bool]) -> dict[str, Any]:
    """Iterations and seconds until a target, and Adam's seconds divided by them, over seeds."""

    def first(run: Racer | None) -> tuple[float | None, float | None]:
        k = None if run is None else next((k for k, value in sorted(measured(run).items()) if good(value)),
                                          None)
        return (None, None) if run is None or k is None else (float(k), run.seconds[k - 1])

    own, adam = ([first(pair[side]) for pair in pairs] for side in (0, 1))
    return {"iterations": reached([k for k, _ in own]), "seconds": reached([seconds for _, seconds in own]),
            "adam_over_this": reached([_ratio(other, seconds)
                                       for (_, seconds), (_, other) in zip(own, adam, strict=True)])}


def _loss_at(run: Racer, rival: Racer | None) -> float | None:
    """The train loss when Adam's whole run would have ended."""
    if rival is None:
        return None
    return next((loss for number, loss in sorted(run.losses.items(), reverse=True)
                 if run.seconds[number - 1] <= rival.seconds[-1]), None)


def _cost(run: Racer | None) -> float | None:
    """Mean seconds of an iteration: rare expensive iterations count in full."""
    return None if run is None or not run.seconds else run.seconds[-1] / len(run.seconds)


def _ratio(value: float | None, by: float | None) -> float | None:
    return None if value is None or not by else value / by
