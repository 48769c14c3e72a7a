"""`pontryagin reproduce plateau`: iterations until the loss of the sine leaves its plateau, over seeds, noise
and depth."""

from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

from pontryagin.papers.sine.methods import METHODS, Method
from pontryagin.papers.sine.setup import SineSetup
from pontryagin.papers.sine.task import SineTask, Theta
from pontryagin.problem import NonFiniteError
from pontryagin.run.errors import ExperimentError
from pontryagin.run.option import SEEDS, Seeds, check_numbers, option, seed_numbers
from pontryagin.run.progress import Progress
from pontryagin.run.study import choose, study
from pontryagin.run.summary import reached
from pontryagin.run.tuning import TUNING_SEED, best, tuned

TABLES = {"plateau": ("method", "layers", "noise", "seed", "rate", "iterations", "train_loss")}
TUNING_RULE = ("the rate that leaves the plateau first, at the middle noise of each depth and a seed of its "
               "own; of those that do not, the one with the least loss at the end")
QUICK_RATES, QUICK_ITERATIONS = (3e-2, 1e-1, 3e-1), 400


@dataclass(frozen=True)
class PlateauSettings:
    """The sine from zeros plus noise, where the loss stands still beside a saddle: iterations until it is
    below a value, for E-MSA, Adam and gradient descent, over seeds, sizes of the noise and depths. Writes
    plateau.csv, summary.json, a figure and report.html.
    """

    out: Path = option("folder for the results, new or empty", Path("runs/plateau"))
    seeds: Seeds = option(SEEDS, 5)
    noises: tuple[float, ...] = option("sizes of the noise", (1e-6, 1e-4, 1e-2), least=1e-12, most=10)
    depths: tuple[int, ...] = option("numbers of layers, T = 5 for all", (10, 20, 40), least=1, most=1000)
    methods: tuple[str, ...] | None = option(
        f"all, or names with commas: {', '.join(METHODS)}", ("emsa", "adam", "sgd"))
    below: float = option("the loss at which the plateau is left", 0.1, least=1e-9, most=10)
    iterations: int = option("at most", 3000, least=1)
    quick: bool = option(f"one depth, two noises, two seeds, {QUICK_ITERATIONS} iterations, for a first look",
                         False)
    overwrite: bool = option("replace the run that is in the folder", False)

    def __post_init__(self) -> None:
        check_numbers(self)
        seed_numbers(self.seeds)
        choose("method", self.methods, METHODS)
        for name, values in (("noises", self.noises), ("depths", self.depths)):
            if not values or len(set(values)) < len(values):
                raise ExperimentError(f"--{name}: expected different numbers, found "
                                      f"{', '.join(f'{value:g}' for value in values) or 'none'}")


@dataclass(frozen=True)
class Left:
    """One run. iterations: until the plateau was left, None where it was not. train_loss: then."""

    method: str
    layers: int
    noise: float
    seed: int
    rate: float | None
    iterations: int | None
    train_loss: float


@dataclass
class PlateauResults:
    """The runs so far, and the scores of the learning rates, by depth and method."""

    settings: PlateauSettings
    runs: list[Left]
    scores: dict[str, dict[str, dict[float, float]]]

    def of(self, method: str, layers: int, noise: float) -> list[Left]:
        """One run a seed."""
        return [run for run in self.runs if (run.method, run.layers, run.noise) == (method, layers, noise)]

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        places = dict.fromkeys((run.method, run.layers, run.noise) for run in self.runs)
        return {"tuning": self.scores, "tuning_rule": TUNING_RULE, "plateau": [
            {"method": method, "layers": layers, "noise": noise,
             **reached([run.iterations for run in self.of(method, layers, noise)])}
            for method, layers, noise in places]}


def run_plateau(settings: PlateauSettings, command: str,
                progress: Progress) -> tuple[Path, PlateauResults, bool]:
    """Write plateau.csv and summary.json into settings.out.

    Returns the folder, the results and whether the run was interrupted (Ctrl-C). Uses one thread. Raises
    ExperimentError before any work.
    """
    if settings.quick:
        settings = replace(settings, depths=settings.depths[:1], noises=settings.noises[-2:], seeds=2,
                           iterations=min(settings.iterations, QUICK_ITERATIONS))
    results, seeds = PlateauResults(settings, [], {}), seed_numbers(settings.seeds)
    with study("plateau", settings, command, TABLES, results.summary) as running:
        for layers in settings.depths:
            for method in choose("method", settings.methods, METHODS):
                rate = _tune(method, layers, results, progress)
                title = f"{layers} layers: {method.label}"
                with progress.task(title, len(seeds) * len(settings.noises)) as advance:
                    for number, (noise, seed) in enumerate(
                            ((noise, seed) for noise in settings.noises for seed in seeds), 1):
                        run = leave(method, layers, noise, seed, rate, settings)
                        results.runs.append(run)
                        running.tables["plateau"].add(*vars(run).values())
                        advance(number, None)
                running.save()
    return running.out, results, running.interrupted


def _tune(method: Method, layers: int, results: PlateauResults, progress: Progress) -> float | None:
    if not method.rates:
        return None
    settings = results.settings
    noise = sorted(settings.noises)[len(settings.noises) // 2]

    def score(rate: float) -> float:
        """Iterations; of a run that stays, more than any, by its loss."""
        run = leave(method, layers, noise, TUNING_SEED, rate, settings)
        if run.iterations is not None:
            return run.iterations
        return settings.iterations * (1 + run.train_loss) if isfinite(run.train_loss) else inf

    scores = tuned(QUICK_RATES if settings.quick else method.rates, score, progress,
                   f"{layers} layers: {method.label}: choosing the learning rate")
    results.scores.setdefault(str(layers), {})[method.name] = scores
    return best(scores)


def leave(method: Method, layers: int, noise: float, seed: int, rate: float | None,
          settings: PlateauSettings) -> Left:
    """One run until its train loss is at most settings.below, or the iterations are used up."""
    task = SineTask("b", seed, SineSetup(layers=layers, noise=noise))
    spent, loss, left = 0, task.loss(task.start()).item(), False

    def observe(theta: Theta, evaluations: int, record: object) -> bool:
        nonlocal spent, loss, left
        spent, loss = spent + 1, task.loss(theta).item()
        left = loss <= settings.below
        return not left and isfinite(loss)

    try:
        method.run(task, settings.iterations, rate or 0.0, observe)
    except NonFiniteError:
        loss = inf
    return Left(method.name, layers, noise, seed, rate, spent if left else None, loss)
