"""`pontryagin bench optimizers`: cost, memory and time to targets of every optimizer, in one run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pontryagin.bench.lockstep import Racer, badness, race, racer
from pontryagin.bench.memory import peak_growth
from pontryagin.bench.methods import METHODS
from pontryagin.bench.tasks import Task, make
from pontryagin.run.environment import machine, versions
from pontryagin.run.errors import ExperimentError
from pontryagin.run.files import Table, prepare, write_json
from pontryagin.run.methods import Method, choose
from pontryagin.run.progress import Progress

COLUMNS = ("method", "learning_rate", "seed", "iteration", "seconds", "train_loss", "score")
TUNING_SEED, SCORE_EVERY = 1000, 10
REFERENCE = "adam"


@dataclass(frozen=True)
class BenchSettings:
    """What `bench optimizers` takes. iterations: horizon of every run, by default the task's; tuning: of the
    tuning runs."""

    task: str = "cnn"
    dataset: str = "digits"
    data: str | None = None
    methods: tuple[str, ...] | None = None
    seeds: int = 3
    iterations: int | None = None
    tuning: int = 150
    threads: int = 1
    out: Path = Path("runs/bench")
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("seeds", "tuning", "threads"):
            if getattr(self, name) < 1:
                raise ExperimentError(f"--{name}: expected a number >= 1, found {getattr(self, name)}")
        if self.iterations is not None and self.iterations < 1:
            raise ExperimentError(f"--iterations: expected a number >= 1, found {self.iterations}")
        choose(self.methods, METHODS)


def run_bench(settings: BenchSettings, command: str, progress: Progress) -> tuple[Path, bool]:
    """Write metrics.csv and summary.json into settings.out. Returns the folder and whether Ctrl-C ended the
    run early."""
    torch.set_num_threads(settings.threads)
    task = make(settings.task, settings.dataset, settings.data)
    methods = available(task, choose(settings.methods, METHODS), progress)
    out = prepare(settings.out, settings.overwrite)
    iterations = settings.iterations or task.iterations
    finished: list[list[Racer]] = []
    tuning: dict[str, dict[float, float]] = {}
    memory: dict[str, int | None] = {}
    interrupted = False
    with Table(out / "metrics.csv", COLUMNS) as metrics:
        try:
            memory = _memory(settings, methods, progress)
            tuning = _tune(task, methods, settings.tuning, progress)
            for seed in range(settings.seeds):
                racers = [racer(task, method, _best(method, tuning), seed) for method in methods]
                with progress.task(f"{task.name}: {len(methods)} optimizers, seed {seed}",
                                   iterations) as advance:
                    race(task, racers, iterations, SCORE_EVERY, advance)
                finished.append(racers)
                for one in racers:
                    metrics.add_all((one.method.name, one.rate, seed, number, seconds, one.losses.get(number),
                                     one.scores.get(number)) for number, seconds in enumerate(one.seconds, 1))
                metrics.flush()
        except KeyboardInterrupt:
            interrupted = True
    write_json(out / "summary.json", {
        "experiment": "bench", "command": command, "interrupted": interrupted,
        "settings": asdict(settings) | {"out": str(settings.out), "iterations": iterations},
        "schedule": "the learning rate falls linearly to zero over the run, for every method but the "
                    "schedule-free one",
        "tuning_rule": f"least mean log(train loss) over {settings.tuning} iterations of a run of its own "
                       "seed",
        "tuning": tuning, "versions": versions(), "machine": machine(),
        "score": task.score_name, "results": summarize(task, finished, memory) if finished else {},
    })
    return out, interrupted


def summarize(task: Task, finished: Sequence[Sequence[Racer]], memory: dict[str, int | None]) -> dict[str,
                                                                                                      Any]:
    """By method. Ratios are to Adam's tuned run of the same seed: below 1 is cheaper or sooner."""
    results: dict[str, Any] = {}
    for position, first in enumerate(finished[0]):
        runs = [racers[position] for racers in finished]
        rivals = [next((one for one in racers if one.method.name == REFERENCE), None) for racers in finished]
        results[first.method.name] = {
            "learning_rate": first.rate,
            "stopped": [run.stopped for run in runs if run.stopped],
            "train_loss": _spread([run.losses[max(run.losses)] for run in runs if run.losses]),
            "score": _spread([run.scores[max(run.scores)] for run in runs if run.scores]),
            "cost": _spread([_ratio(_cost(run), _cost(rival))
                             for run, rival in zip(runs, rivals, strict=True)]),
            "memory": _ratio(memory.get(first.method.name), memory.get(REFERENCE)),
            "seconds_per_iteration": _spread([_cost(run) for run in runs]),
            "to_loss": {f"{target:g}": _reach(runs, rivals, target, False) for target in task.losses},
            "to_score": {f"{target:g}": _reach(runs, rivals, target, True) for target in task.scores},
            "loss_when_adam_ends": _spread([_loss_at(run, rival)
                                            for run, rival in zip(runs, rivals, strict=True)]),
        }
    return results


def _reach(runs: Sequence[Racer], rivals: Sequence[Racer | None], target: float, score: bool) -> dict[str,
                                                                                                      Any]:
    """Iterations and seconds until the target, and Adam's seconds divided by them, over seeds."""
    steps = [_first(run, target, score) for run in runs]
    adam = [None if rival is None else _first(rival, target, score) for rival in rivals]
    seconds = [None if k is None else run.seconds[k - 1] for run, k in zip(runs, steps, strict=True)]
    others = [None if k is None or rival is None else rival.seconds[k - 1]
              for rival, k in zip(rivals, adam, strict=True)]
    return {"iterations": _spread([float(k) if k else None for k in steps]), "seconds": _spread(seconds),
            "adam_over_this": _spread([_ratio(other, own)
                                       for own, other in zip(seconds, others, strict=True)])}


def _first(run: Racer, target: float, score: bool) -> int | None:
    if score:
        return next((number for number, value in sorted(run.scores.items()) if value >= target), None)
    return next((number for number, loss in sorted(run.losses.items()) if loss <= target), None)


def _loss_at(run: Racer, rival: Racer | None) -> float | None:
    """The train loss when Adam's whole run would have ended."""
    if rival is None:
        return None
    reached = [loss for number,
               loss in sorted(run.losses.items()) if run.seconds[number - 1] <= rival.seconds[-1]]
    return reached[-1] if reached else None


def _cost(run: Racer | None) -> float | None:
    """Mean seconds of an iteration: rare expensive iterations count in full."""
    return None if run is None or not run.seconds else run.seconds[-1] / len(run.seconds)


def _ratio(value: float | None, by: float | None) -> float | None:
    return None if value is None or not by else value / by


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    found = [value for value in values if value is not None]
    if 2 * len(found) <= len(values):
        return {"median": None, "min": min(found, default=None), "max": None, "reached": len(found),
                "seeds": len(values)}
    ordered = sorted(found) + [float("inf")] * (len(values) - len(found))
    middle = median(ordered)
    return {"median": middle, "min": ordered[0], "max": found and max(found), "reached": len(found),
            "seeds": len(values)}


def available(task: Task, methods: list[Method], progress: Progress) -> list[Method]:
    """Those whose package is there; a missing one is named, not skipped in silence."""
    result = []
    for method in methods:
        try:
            method.trainer(task.model(0), task.objective)
        except ExperimentError as error:
            progress.say(f"without {method.name}: {error}")
        else:
            result.append(method)
    return result


def _memory(settings: BenchSettings, methods: Sequence[Method], progress: Progress) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    with progress.task("peak memory", len(methods)) as advance:
        for number, method in enumerate(methods, 1):
            found[method.name] = peak_growth(settings.task, settings.dataset, settings.data, method.name)
            advance(number, None)
    return found


def _tune(task: Task, methods: Sequence[Method], iterations: int,
          progress: Progress) -> dict[str, dict[float, float]]:
    """Every rate of every method with more than one, all on the same seed that no reported run uses."""
    tuning: dict[str, dict[float, float]] = {}
    for method in methods:
        if len(method.rates) > 1:
            racers = [racer(task, method, rate, TUNING_SEED) for rate in method.rates]
            with progress.task(f"{method.name}: choosing the learning rate", iterations) as advance:
                race(task, racers, iterations, 0, advance)
            tuning[method.name] = {one.rate: badness(one.losses, iterations) for one in racers}
    return tuning


def _best(method: Method, tuning: dict[str, dict[float, float]]) -> float:
    scores = tuning.get(method.name)
    return method.rates[0] if scores is None else min(scores, key=scores.__getitem__)
