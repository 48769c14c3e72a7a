"""`pontryagin reproduce sine`: Figure 1 (a) and (b) of [LCTE], the paper's methods, ours, and tuned
baselines."""

from collections import defaultdict
from dataclasses import dataclass, field
from math import inf, isfinite, log10
from pathlib import Path
from time import process_time
from typing import Any

import torch

from pontryagin.papers.sine.methods import METHODS, Method
from pontryagin.papers.sine.setup import SineSetup, references
from pontryagin.papers.sine.tables import FIT, METRICS, STAGES, STATES, write_fit, write_states
from pontryagin.papers.sine.task import SineTask, Theta
from pontryagin.problem import NonFiniteError
from pontryagin.run.environment import Stopwatch
from pontryagin.run.option import SEEDS, Seeds, check_numbers, option, seed_numbers
from pontryagin.run.progress import Progress
from pontryagin.run.study import Study, choose, study
from pontryagin.run.summary import Measured, over_seeds, summarize
from pontryagin.run.tuning import TUNING_SEED, best, tuned
from pontryagin.update import IterationRecord

TARGETS = (0.1, 0.01, 1e-4, 1e-6)
"""Of the train loss: the paper's end values lie about the first two, what converges goes beyond."""
CONVERGED = 1e-12
"""A train loss below which a run ends: float64 knows it no better."""
TUNING_ITERATIONS = 1000
"""At most, of a tuning run: seven rates at the 10000 of (b) would cost twice as much as three reported
seeds."""
RULE = ("the rate with the least mean of log10 J over a run of its own seed, which rewards both "
        f"falling early and ending low; at most {TUNING_ITERATIONS} iterations")
QUICK_RATES = (1e-2, 3e-2, 1e-1)
TABLES = {name: (*text, *numbers) for name, (text, numbers) in
          {"metrics": METRICS, "stages": STAGES, "states": STATES, "fit": FIT}.items()}
_QUICK_LENGTH, _QUICK = 200, {"emsa-paper": 30, "msa": 5, "lm": 20}
"""Iterations of a first look: seconds for each method."""


@dataclass(frozen=True)
class SineSettings:
    """Figure 1: fit sin x with a residual network, from a good (a) and a poor (b) initialization; every
    number that defines it is an option. Writes metrics.csv, stages.csv, states.csv, fit.csv, summary.json,
    figures and report.html. Ctrl-C stops it; what has been measured is kept and reported.
    """

    out: Path = option("folder for the results, new or empty", Path("runs/sine"))
    seeds: Seeds = option(SEEDS, 3)
    iterations: int | None = option("iterations of every method; by default 500 in (a), and in (b) 2000 for "
                                    "E-MSA and 10000 for gradient methods", None, least=1)
    methods: tuple[str, ...] | None = option(f"all, or names with commas: {', '.join(METHODS)}", None)
    quick: bool = option("short runs with one seed, for a first look", False)
    overwrite: bool = option("replace the run that is in the folder", False)
    setup: SineSetup = field(default_factory=SineSetup)

    def __post_init__(self) -> None:
        check_numbers(self)
        seed_numbers(self.seeds)
        choose("method", self.methods, METHODS)

    def length(self, figure: str, method: Method) -> int:
        """Iterations of a run: in (a) 500, in (b) 2000 for extended MSA and 10000 for gradient methods, as in
        the paper."""
        if self.iterations is not None:
            wanted = self.iterations
        elif self.quick:
            wanted = _QUICK.get(method.name, _QUICK_LENGTH)
        else:
            wanted = 500 if figure == "a" else 10000 if method.rates else 2000
        return wanted if method.longest is None else min(wanted, method.longest)


def run_sine(settings: SineSettings, command: str, progress: Progress) -> tuple[Path, bool]:
    """Run everything and write metrics.csv, stages.csv, states.csv, fit.csv and summary.json into
    settings.out.

    Returns the folder and whether the run was interrupted (Ctrl-C): then the tables hold what had been
    measured. Uses one thread, and sets the number back. Raises ExperimentError before any work when a setting
    is wrong.
    """
    found = _Results(settings, progress)
    with study("sine", settings, command, TABLES, found.summary) as running:
        progress.say(f"Figure 1 of the paper: a residual network of {settings.setup.layers} stages learns "
                     "sin x, (a) from a good initialization, (b) from a poor one; loss: mean squared error.")
        for figure in settings.setup.figures:
            for method in choose("method", settings.methods, METHODS):
                rate = found.tune(figure, method)
                for place, seed in enumerate(seed_numbers(settings.seeds)):
                    theta = found.run(running, figure, method, seed, rate)
                    if not place and theta.isfinite().all():
                        task = SineTask(figure, seed, settings.setup)
                        write_states(running.tables["states"], task, method.name, theta)
                        write_fit(running.tables["fit"], task, method.name, theta)
                running.save()
    return running.out, running.interrupted


class _Results:
    """What has been measured so far, by figure and method: the points of each seed, the scores of the rates,
    why runs stopped."""

    def __init__(self, settings: SineSettings, progress: Progress) -> None:
        self.settings, self.progress = settings, progress
        self.points: dict[str, dict[str, list[list[Measured]]]] = defaultdict(lambda: defaultdict(list))
        self.scores: dict[str, dict[str, dict[float, float]]] = defaultdict(dict)
        self.diverged: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))

    def tune(self, figure: str, method: Method) -> float:
        """The rate of the setup, or the best of the method's grid, on data and controls that no reported run
        uses; 0 where it has none."""
        if not method.rates:
            return 0.0
        if method.name in self.settings.setup.rates:
            return self.settings.setup.rates[method.name]
        length = min(self.settings.length(figure, method), TUNING_ITERATIONS)
        task = SineTask(figure, TUNING_SEED, self.settings.setup)
        scores = tuned(QUICK_RATES if self.settings.quick else method.rates,
                       lambda rate: score(task, method, length, rate), self.progress,
                       f"({figure}) {method.label}: choosing the learning rate")
        self.scores[figure][method.name] = scores
        return best(scores)

    def run(self, running: Study, figure: str, method: Method, seed: int, rate: float) -> Theta:
        """The last controls; every recorded iteration is a row in the tables."""
        task, watch = SineTask(figure, seed, self.settings.setup), Stopwatch(process_time)
        length = self.settings.length(figure, method)
        points: list[Measured] = []
        self.points[figure][method.name].append(points)
        last, spent, iteration = task.start(), 0, 0

        def record(found: IterationRecord | None) -> float:
            points.append(Measured(iteration, spent, watch.seconds, *task.losses(last)))
            with torch.no_grad():
                objective = task.objective(last).item()
            _write(running, (figure, method.name, seed, iteration), points[-1], objective, found)
            return points[-1].train_loss

        def observe(theta: Theta, evaluations: int, found: IterationRecord | None) -> bool:
            nonlocal last, spent, iteration
            watch.pause()
            last, spent, iteration = theta, spent + evaluations, iteration + 1
            going_on = True
            if iteration <= 1000 or iteration % 10 == 0 or iteration == length:
                loss = record(found)
                advance(iteration, loss)
                going_on = isfinite(loss) and loss > CONVERGED
            watch.start()
            return going_on

        record(None)
        title = f"({figure}) {method.label}, seed {seed}"
        with self.progress.task(title, length) as advance:
            watch.start()
            try:
                method.run(task, length, rate, observe)
            except NonFiniteError as error:
                self.progress.say(f"{title}: stopped after {iteration} iterations: {error}")
                self.diverged[figure][method.name].append(str(error))
        return last

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        results = {figure: {name: summarize(runs, TARGETS, self._rate(figure, name))
                            for name, runs in methods.items()}
                   for figure, methods in self.points.items()}
        source, known = references(self.settings.setup)
        paper = {figure: {name: self._beside(figure, name, losses) for name, losses in methods.items()}
                 for figure, methods in known.items()}
        return {"results": results, "tuning": self.scores, "tuning_rule": RULE, "diverged": self.diverged,
                "paper": paper, "paper_source": source}

    def _beside(self, figure: str, name: str, losses: dict[int, float]) -> dict[str, Any]:
        """The last of the losses of others with its iteration; and for all of them, ours there."""
        runs = self.points.get(figure, {}).get(name, [])
        ours = {iteration: [point.train_loss for run in runs for point in run if point.iteration == iteration]
                for iteration in losses}
        return {"loss": losses[max(losses)], "iteration": max(losses),
                "losses": [{"iteration": iteration, "loss": loss,
                            "here": over_seeds(ours[iteration]) if ours[iteration] else None}
                           for iteration, loss in losses.items()]}

    def _rate(self, figure: str, name: str) -> float | None:
        scores = self.scores[figure].get(name)
        return best(scores) if scores else self.settings.setup.rates.get(name)


def _write(running: Study, place: tuple[Any, ...], point: Measured, objective: float,
           found: IterationRecord | None) -> None:
    solver: tuple[Any, ...] = (None, None, None, None)
    if found is not None:
        solver = (found.accepted, found.penalties.rho_state, found.optimality_gap, found.rejected)
        running.tables["stages"].add_all((*place, number, stage.gain, stage.state_error, stage.costate_error)
                                         for number, stage in enumerate(found.stages))
    running.tables["metrics"].add(*place, point.evaluations, point.seconds, point.train_loss, point.test_loss,
                                  objective, *solver)


def score(task: SineTask, method: Method, iterations: int, rate: float) -> float:
    """The mean over a run of log10 of J; infinite when it diverged."""
    logs: list[float] = []

    def observe(theta: Theta, evaluations: int, record: object) -> bool:
        loss = task.objective(theta).item()
        logs.append(log10(max(loss, 1e-300)) if isfinite(loss) else inf)
        return isfinite(loss)

    method.run(task, iterations, rate, observe)
    return sum(logs) / len(logs)
