"""`pontryagin reproduce certificate`: J under rho = 2C, iteration by iteration, beside tuned Adam."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from pontryagin.diagnostics import iteration_row, rejected_share
from pontryagin.papers.certificate.adam import RATES, Tuning, adam, tune
from pontryagin.papers.certificate.tasks import Task, choose
from pontryagin.problem import ControlProblem
from pontryagin.run.environment import machine, threads, versions
from pontryagin.run.errors import ExperimentError
from pontryagin.run.files import Table, prepare, write_json
from pontryagin.run.progress import Progress
from pontryagin.run.summary import over_seeds
from pontryagin.update import ExtendedMSA, FromEstimate, IterationRecord, PenaltyRule, PerStageEstimate

RULES: dict[str, Callable[[], PenaltyRule]] = {"estimate": FromEstimate, "per-stage": PerStageEstimate}
LABELS = {"estimate": "rho = 2C", "per-stage": "rho = 2C per stage", "adam": "Adam, tuned"}
METRICS = ("task", "method", "seed", "iteration", "objective", "optimality_gap", "achieved", "state_error",
           "costate_error",
           "estimate", "rho_state", "accepted", "rejected")
STAGES = ("task", "method", "seed", "iteration", "stage", "name", "gain", "state_error", "costate_error",
          "rho_state")
_QUICK_RATES, _QUICK = (1e-2, 1e-1), 10


@dataclass(frozen=True)
class CertificateSettings:
    """What `reproduce certificate` takes. quick: one seed, few iterations, for a first look."""

    out: Path = Path("runs/certificate")
    seeds: int = 5
    tasks: tuple[str, ...] | None = None
    quick: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ExperimentError(f"--seeds: expected a number >= 1, found {self.seeds}")
        choose(self.tasks)

    def lengths(self, task: Task) -> tuple[int, int]:
        """Iterations of Adam and of each rule."""
        return (_QUICK, _QUICK) if self.quick else (task.adam, task.emsa)


@dataclass
class TaskResult:
    """A run a seed: Adam's J at iteration 0, 1, ..., and each rule's records."""

    tuning: Tuning
    adam: list[list[float]] = field(default_factory=list)
    records: dict[str, list[list[IterationRecord]]] = field(default_factory=dict)


def run_certificate(settings: CertificateSettings, command: str,
                    progress: Progress) -> tuple[Path, dict[str, TaskResult], bool]:
    """Write metrics.csv, stages.csv and summary.json into settings.out.

    Returns the folder, the results and whether the run was interrupted (Ctrl-C). Uses one thread. Raises
    ExperimentError before any work.
    """
    tasks, out = choose(settings.tasks), prepare(settings.out, settings.overwrite)
    results: dict[str, TaskResult] = {}
    interrupted = False
    with threads(1), Table(out / "metrics.csv", METRICS) as metrics, Table(out / "stages.csv",
                                                                             STAGES) as stages:
        try:
            for task in tasks:
                _run_task(settings, task, results, metrics, stages, progress)
                write_json(out / "summary.json", _summary(settings, command, results, True))
        except KeyboardInterrupt:
            interrupted = True
    write_json(out / "summary.json", _summary(settings, command, results, interrupted))
    return out, results, interrupted


def _run_task(settings: CertificateSettings, task: Task, results: dict[str, TaskResult], metrics: Table,
              stages: Table, progress: Progress) -> None:
    rates = _QUICK_RATES if settings.quick else RATES
    length, own_length = settings.lengths(task)
    with progress.task(f"{task.label}: choosing Adam's rate", len(rates)) as advance:
        tuning = tune(task.descent, length, rates, lambda done: advance(done, None))
    result = results[task.name] = TaskResult(tuning)
    for seed in range(settings.seeds):
        problem = task.problem(seed)
        with progress.task(f"{task.label}: Adam ({tuning.best:g}), seed {seed}", 1) as advance:
            losses = adam(task.descent(seed), tuning.best, length)
            result.adam.append(losses)
            metrics.add_all((task.name, "adam", seed, k, loss, *[None] * 8) for k, loss in enumerate(losses))
            advance(1, losses[-1])
        for name, rule in RULES.items():
            with progress.task(f"{task.label}: {LABELS[name]}, seed {seed}", own_length) as advance:
                records = _solve(problem, rule(), own_length, advance)
            result.records.setdefault(name, []).append(records)
            metrics.add(task.name, name, seed, 0, records[0].objective_before, *[None] * 8)
            for record in records:
                row = iteration_row(record)
                metrics.add(task.name, name, seed, *(_known(row[column]) for column in METRICS[3:]))
                stages.add_all((task.name, name, seed, record.iteration, one.stage, one.name, one.gain,
                                one.state_error, one.costate_error, one.penalties.rho_state)
                               for one in record.stages)
        metrics.flush()
        stages.flush()


def _solve(problem: ControlProblem, rule: PenaltyRule, iterations: int,
           advance: Callable[[int, float | None], None]) -> list[IterationRecord]:
    """Until no trial is accepted any more, where J is known to its rounding only, or the iterations are used
    up."""
    records = []
    for record in ExtendedMSA(problem, penalty=rule).iterate(iterations):
        records.append(record)
        advance(record.iteration, record.objective_after)
        if not record.accepted:
            break
    return records


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


def verdicts(result: TaskResult) -> dict[str, dict[str, Any]]:
    """For each rule over the seeds: rises of J, share of rejected trials, least J, and iterations to Adam's
    least J.

    The target of a seed is the least J that tuned Adam reached on it within its whole budget; adam_iterations
    is when it did. A seed that does not get there has no iteration, and the median is None when half of the
    seeds or more do not.
    """
    found = {}
    goals = [min(losses) for losses in result.adam]
    when = [losses.index(goal) for losses, goal in zip(result.adam, goals, strict=True)]
    for name, runs in result.records.items():
        to_goal = [next((record.iteration for record in records if record.objective_after <= goal), None)
                   for records, goal in zip(runs, goals, strict=False)]
        reached = [number for number in to_goal if number is not None]
        middle = median([float("inf") if number is None else number for number in to_goal])
        found[name] = {
            "rises": sum(record.objective_after > record.objective_before for records in runs
                         for record in records),
            "iterations": sum(len(records) for records in runs),
            "rejected_share": over_seeds([rejected_share(records) for records in runs]),
            "objective": over_seeds([records[-1].objective_after for records in runs]),
            "adam_objective": over_seeds(goals), "adam_iterations": over_seeds([float(number) for number in when]),
            "iterations_to_adam": {"median": middle if isfinite(middle) else None,
                                   "min": min(reached, default=None),
                                   "max": max(reached, default=None), "reached": len(reached),
                                   "seeds": len(to_goal)},
        }
    return found


def _summary(settings: CertificateSettings, command: str, results: dict[str, TaskResult],
             interrupted: bool) -> dict[str, Any]:
    return {"experiment": "certificate", "command": command, "interrupted": interrupted,
            "settings": asdict(settings) | {"out": str(settings.out)},
            "results": {name: verdicts(result) for name, result in results.items()},
            "tuning": {name: {"scores": result.tuning.scores, "rate": result.tuning.best}
                       for name, result in results.items()},
            "tuning_rule": "the rate with the least J of a run of the whole budget on a seed of its own",
            "diverged": {}, "versions": versions(), "machine": machine()}
