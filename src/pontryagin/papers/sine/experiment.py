"""`pontryagin reproduce sine`: Figure 1 (a) and (b) of [LCTE], the paper's methods, ours, and tuned
baselines."""

from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from pontryagin.papers.sine.methods import Method, choose
from pontryagin.papers.sine.pictures import write_fit, write_states
from pontryagin.papers.sine.task import FIGURES, SineTask, Theta
from pontryagin.papers.sine.tuning import Tuning, tune
from pontryagin.problem import NonFiniteError
from pontryagin.run.environment import Stopwatch, machine, threads, versions
from pontryagin.run.errors import ExperimentError
from pontryagin.run.files import Table, prepare, write_json
from pontryagin.run.progress import Progress
from pontryagin.run.summary import Measured as Point
from pontryagin.run.summary import summarize
from pontryagin.update import IterationRecord

TARGETS = (0.1, 0.01, 1e-4, 1e-6)
CONVERGED = 1e-12
TUNING_ITERATIONS = 1000
QUICK_RATES = (1e-2, 3e-2, 1e-1)
PAPER = {
    "a": {name: {"loss": loss, "iteration": 500}
          for name, loss in {"emsa-paper": 0.03, "adam": 0.04, "adagrad": 0.055, "sgd": 0.07}.items()},
    "b": {"emsa-paper": {"loss": 0.009, "iteration": 2000}, "adam": {"loss": 0.007, "iteration": 10000}},
}
"""End values read off the paper's Figure 1."""

METRICS = ("figure", "method", "seed", "iteration", "evaluations", "seconds", "train_loss", "test_loss",
           "accepted", "rho",
           "optimality_gap", "rejected")
STAGES = ("figure", "method", "seed", "iteration", "stage", "gain", "state_error", "costate_error")
_QUICK_LENGTH, _QUICK = 200, {"emsa-paper": 30, "msa": 5, "lm": 20}


@dataclass(frozen=True)
class SineSettings:
    """What `reproduce sine` takes. iterations: for every method, in the place of the paper's numbers."""

    out: Path = Path("runs/sine")
    seeds: int = 3
    iterations: int | None = None
    methods: tuple[str, ...] | None = None
    quick: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ExperimentError(f"--seeds: expected a number >= 1, found {self.seeds}")
        if self.iterations is not None and self.iterations < 1:
            raise ExperimentError(f"--iterations: expected a number >= 1, found {self.iterations}")
        choose(self.methods)

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


@dataclass
class Results:
    """What has been measured so far: the points of each seed, by figure and method."""

    points: dict[str, dict[str, list[list[Point]]]] = field(default_factory=dict)
    tuning: dict[str, dict[str, Tuning]] = field(default_factory=dict)
    diverged: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def new_run(self, figure: str, method: str) -> list[Point]:
        """An empty list of points that belongs to the results at once."""
        run: list[Point] = []
        self.points.setdefault(figure, {}).setdefault(method, []).append(run)
        return run


def run_sine(settings: SineSettings, command: str, progress: Progress) -> tuple[Path, bool]:
    """Run everything and write metrics.csv, stages.csv, states.csv, fit.csv and summary.json into
    settings.out.

    Returns the folder and whether the run was interrupted (Ctrl-C): then the tables hold what had been
    measured. Uses one thread, and sets the number back. Raises ExperimentError before any work when a setting
    is wrong.
    """
    methods = choose(settings.methods)
    out = prepare(settings.out, settings.overwrite)
    results = Results()
    interrupted = False
    with threads(1), Table(out / "metrics.csv", METRICS) as metrics, Table(out / "stages.csv",
                                                                             STAGES) as stages, \
            Table(out / "states.csv", ("figure", "method", "x", "time", "component", "state")) as states, \
            Table(out / "fit.csv", ("figure", "method", "x", "target", "prediction")) as fit:
        try:
            for figure in FIGURES:
                for method in methods:
                    rate = _rate(settings, figure, method, results, progress)
                    for seed in range(settings.seeds):
                        theta = _Run(settings, figure, method, seed, rate, metrics, stages, results,
                                     progress).run()
                        if seed == 0 and theta.isfinite().all():
                            write_states(states, figure, method.name, theta)
                            write_fit(fit, figure, method.name, theta)
                    _write_summary(out, settings, command, results, True)
        except KeyboardInterrupt:
            interrupted = True
    _write_summary(out, settings, command, results, interrupted)
    return out, interrupted


def _rate(settings: SineSettings, figure: str, method: Method, results: Results, progress: Progress) -> float:
    if not method.rates:
        return 0.0
    tuning = tune(figure, method, min(settings.length(figure, method), TUNING_ITERATIONS),
                  QUICK_RATES if settings.quick else method.rates, progress)
    results.tuning.setdefault(figure, {})[method.name] = tuning
    return tuning.best


@dataclass
class _Run:
    """One method, one seed."""

    settings: SineSettings
    figure: str
    method: Method
    seed: int
    rate: float
    metrics: Table
    stages: Table
    results: Results
    progress: Progress

    def run(self) -> Theta:
        """The last controls; every recorded iteration is a row in the tables."""
        task, watch = SineTask(self.figure, self.seed), Stopwatch()
        points = self.results.new_run(self.figure, self.method.name)
        length = self.settings.length(self.figure, self.method)
        last, spent, iteration = task.start(), 0, 0
        self._record(points, Point(0, 0, 0.0, *task.losses(last)), None)

        def observe(theta: Theta, evaluations: int, record: IterationRecord | None) -> bool:
            nonlocal last, spent, iteration
            watch.pause()
            last, spent, iteration = theta, spent + evaluations, iteration + 1
            going_on = True
            if _is_recorded(iteration, length):
                point = Point(iteration, spent, watch.seconds, *task.losses(theta))
                self._record(points, point, record)
                advance(iteration, point.train_loss)
                going_on = isfinite(point.train_loss) and point.train_loss > CONVERGED
            watch.start()
            return going_on

        title = f"({self.figure}) {self.method.label}, seed {self.seed}"
        with self.progress.task(title, length) as advance:
            watch.start()
            try:
                self.method.run(task, length, self.rate, observe)
            except NonFiniteError as error:
                self.progress.say(f"{title}: stopped after {iteration} iterations: {error}")
                self.results.diverged.setdefault(self.figure, {}).setdefault(self.method.name,
                                                                             []).append(str(error))
            watch.pause()
        self.metrics.flush()
        self.stages.flush()
        return last

    def _record(self, points: list[Point], point: Point, record: IterationRecord | None) -> None:
        points.append(point)
        row = (self.figure, self.method.name, self.seed, point.iteration)
        solver: tuple[Any, ...] = (None, None, None, None)
        if record is not None:
            solver = (record.accepted, record.penalties.rho_state, record.optimality_gap, record.rejected)
            self.stages.add_all((*row, number, stage.gain, stage.state_error, stage.costate_error)
                                for number, stage in enumerate(record.stages))
        self.metrics.add(*row, point.evaluations, point.seconds, point.train_loss, point.test_loss, *solver)


def _is_recorded(iteration: int, length: int) -> bool:
    """Every iteration up to 1000, then every tenth, and the last."""
    return iteration <= 1000 or iteration % 10 == 0 or iteration == length


def _write_summary(out: Path, settings: SineSettings, command: str, results: Results,
                   interrupted: bool) -> None:
    measured = {
        figure: {name: summarize(runs, TARGETS, _best(results, figure, name))
                 for name, runs in methods.items()}
        for figure, methods in results.points.items()}
    write_json(out / "summary.json", {
        "experiment": "sine", "command": command, "interrupted": interrupted,
        "settings": asdict(settings) | {"out": str(settings.out)}, "versions": versions(),
        "machine": machine(),
        "results": measured,
        "tuning": {figure: {name: tuning.scores for name, tuning in methods.items()}
                   for figure, methods in results.tuning.items()},
        "tuning_rule": f"{Tuning.RULE}; at most {TUNING_ITERATIONS} iterations", "diverged": results.diverged,
        "paper": PAPER,
    })


def _best(results: Results, figure: str, method: str) -> float | None:
    tuning = results.tuning.get(figure, {}).get(method)
    return tuning.best if tuning else None
