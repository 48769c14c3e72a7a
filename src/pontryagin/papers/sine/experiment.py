"""`pontryagin reproduce sine`: Figure 1 (a) and (b) of [LCTE], the paper's methods, ours, and tuned
baselines."""

from collections import defaultdict
from dataclasses import dataclass
from math import inf, isfinite, log10
from pathlib import Path
from typing import Any

from pontryagin.papers.sine.methods import METHODS, Method
from pontryagin.papers.sine.tables import FIT, METRICS, STAGES, STATES, write_fit, write_states
from pontryagin.papers.sine.task import FIGURES, SineTask, Theta
from pontryagin.problem import NonFiniteError
from pontryagin.run.environment import Stopwatch
from pontryagin.run.option import SEEDS, Seeds, check_numbers, option, seed_numbers
from pontryagin.run.progress import Progress
from pontryagin.run.study import Study, choose, study
from pontryagin.run.summary import Measured, summarize
from pontryagin.run.tuning import TUNING_SEED, best, tuned
from pontryagin.update import IterationRecord

TARGETS = (0.1, 0.01, 1e-4, 1e-6)
"""Of the train loss: the paper's end values lie about the first two, what converges goes beyond."""
CONVERGED = 1e-12
"""A train loss below which a run ends: float64 knows it no better."""
TUNING_ITERATIONS = 1000
"""At most, of a tuning run: seven rates at the 10000 of (b) would cost twice as much as three reported
seeds."""
RULE = ("the rate with the least mean of log10(train loss) over a run of its own seed, which rewards both "
        f"falling early and ending low; at most {TUNING_ITERATIONS} iterations")
QUICK_RATES = (1e-2, 3e-2, 1e-1)
PAPER = {
    "a": {name: {"loss": loss, "iteration": 500}
          for name, loss in {"emsa-paper": 0.03, "adam": 0.04, "adagrad": 0.055, "sgd": 0.07}.items()},
    "b": {"emsa-paper": {"loss": 0.009, "iteration": 2000}, "adam": {"loss": 0.007, "iteration": 10000}},
}
"""End values read off the paper's Figure 1."""

TABLES = {name: (*text, *numbers) for name, (text, numbers) in
          {"metrics": METRICS, "stages": STAGES, "states": STATES, "fit": FIT}.items()}
_QUICK_LENGTH, _QUICK = 200, {"emsa-paper": 30, "msa": 5, "lm": 20}
"""Iterations of a first look: seconds for each method."""


@dataclass(frozen=True)
class SineSettings:
    """Figure 1: fit sin x with a residual network of 20 layers, from a good (a) and a poor (b)
    initialization. Writes metrics.csv, stages.csv, states.csv, fit.csv, summary.json, figures and
    report.html. Ctrl-C stops it; what has been measured is kept and reported.
    """

    out: Path = option("folder for the results, new or empty", Path("runs/sine"))
    seeds: Seeds = option(SEEDS, 3)
    iterations: int | None = option("iterations of every method; by default 500 in (a), and in (b) 2000 for "
                                    "E-MSA and 10000 for gradient methods", None, least=1)
    methods: tuple[str, ...] | None = option(f"all, or names with commas: {', '.join(METHODS)}", None)
    quick: bool = option("short runs with one seed, for a first look", False)
    overwrite: bool = option("replace the run that is in the folder", False)

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
        progress.say("Figure 1 of the paper: a residual network of 20 stages learns sin x, (a) from a good "
                     "initialization, (b) from a poor one; loss: mean squared error.")
        for figure in FIGURES:
            for method in choose("method", settings.methods, METHODS):
                rate = found.tune(figure, method)
                for place, seed in enumerate(seed_numbers(settings.seeds)):
                    theta = found.run(running, figure, method, seed, rate)
                    if not place and theta.isfinite().all():
                        write_states(running.tables["states"], figure, method.name, theta)
                        write_fit(running.tables["fit"], figure, method.name, theta)
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
        """The best of the method's grid, on data and controls that no reported run uses; 0 where it has
        none."""
        if not method.rates:
            return 0.0
        length = min(self.settings.length(figure, method), TUNING_ITERATIONS)
        scores = tuned(QUICK_RATES if self.settings.quick else method.rates,
                       lambda rate: score(SineTask(figure, TUNING_SEED), method, length, rate), self.progress,
                       f"({figure}) {method.label}: choosing the learning rate")
        self.scores[figure][method.name] = scores
        return best(scores)

    def run(self, running: Study, figure: str, method: Method, seed: int, rate: float) -> Theta:
        """The last controls; every recorded iteration is a row in the tables."""
        task, watch, length = SineTask(figure, seed), Stopwatch(), self.settings.length(figure, method)
        points: list[Measured] = []
        self.points[figure][method.name].append(points)
        last, spent, iteration = task.start(), 0, 0

        def record(found: IterationRecord | None) -> float:
            points.append(Measured(iteration, spent, watch.seconds, *task.losses(last)))
            _write(running, (figure, method.name, seed, iteration), points[-1], found)
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
        return {"results": results, "tuning": self.scores, "tuning_rule": RULE, "diverged": self.diverged,
                "paper": PAPER}

    def _rate(self, figure: str, name: str) -> float | None:
        scores = self.scores[figure].get(name)
        return best(scores) if scores else None


def _write(running: Study, place: tuple[Any, ...], point: Measured, found: IterationRecord | None) -> None:
    solver: tuple[Any, ...] = (None, None, None, None)
    if found is not None:
        solver = (found.accepted, found.penalties.rho_state, found.optimality_gap, found.rejected)
        running.tables["stages"].add_all((*place, number, stage.gain, stage.state_error, stage.costate_error)
                                         for number, stage in enumerate(found.stages))
    running.tables["metrics"].add(*place, point.evaluations, point.seconds, point.train_loss, point.test_loss,
                                  *solver)


def score(task: SineTask, method: Method, iterations: int, rate: float) -> float:
    """The mean over a run of log10 of the train loss; infinite when it diverged."""
    logs: list[float] = []

    def observe(theta: Theta, evaluations: int, record: object) -> bool:
        loss = task.loss(theta).item()
        logs.append(log10(max(loss, 1e-300)) if isfinite(loss) else inf)
        return isfinite(loss)

    method.run(task, iterations, rate, observe)
    return sum(logs) / len(logs)
