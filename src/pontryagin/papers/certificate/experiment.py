"""`pontryagin reproduce certificate`: J under rho = 2C, iteration by iteration, beside tuned Adam."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch

from pontryagin.diagnostics import iteration_row, rejected_share
from pontryagin.papers.certificate.tasks import TASKS, Descent, Task
from pontryagin.papers.sine.methods import descend
from pontryagin.problem import ControlProblem
from pontryagin.run.option import SEEDS, Seeds, option, seed_numbers
from pontryagin.run.progress import Advance, Progress
from pontryagin.run.study import Study, choose, study
from pontryagin.run.summary import over_seeds, reached
from pontryagin.run.tuning import TUNING_SEED, best, tuned
from pontryagin.update import ExtendedMSA, FromEstimate, IterationRecord, PenaltyRule, PerStageEstimate

RULES: dict[str, Callable[[], PenaltyRule]] = {"estimate": FromEstimate, "per-stage": PerStageEstimate}
LABELS = {"estimate": "rho = 2C", "per-stage": "rho = 2C per stage", "adam": "Adam, tuned"}
METRICS = ("task", "method", "seed", "iteration", "objective", "optimality_gap", "achieved", "state_error",
           "costate_error", "estimate", "rho_state", "accepted", "rejected")
STAGES = ("task", "method", "seed", "iteration", "stage", "name", "gain", "state_error", "costate_error",
          "rho_state")
RATES = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Of Adam, half a decade apart."""
_QUICK_RATES, _QUICK = (1e-2, 1e-1), 10


@dataclass(frozen=True)
class CertificateSettings:
    """Full batches under penalty rules that measure the constant C of Lemma 2 and set rho = 2C: J must never
    rise. Beside them Adam, its rate the best of five. Writes metrics.csv, stages.csv, summary.json, figures
    and report.html.
    """

    out: Path = option("folder for the results, new or empty", Path("runs/certificate"))
    seeds: Seeds = option(SEEDS, 5)
    tasks: tuple[str, ...] | None = option(f"all, or names with commas: {', '.join(TASKS)}", None)
    quick: bool = option("one seed and few iterations, for a first look", False)
    overwrite: bool = option("replace the run that is in the folder", False)

    def __post_init__(self) -> None:
        seed_numbers(self.seeds)
        choose("task", self.tasks, TASKS)

    def lengths(self, task: Task) -> tuple[int, int]:
        """Iterations of Adam and of each rule."""
        return (_QUICK, _QUICK) if self.quick else (task.adam, task.emsa)


@dataclass
class TaskResult:
    """Adam's score by rate; and a run a seed: Adam's J at iteration 0, 1, ..., and each rule's records."""

    scores: dict[float, float]
    adam: list[list[float]] = field(default_factory=list)
    records: dict[str, list[list[IterationRecord]]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Adam's: that with the least score."""
        return best(self.scores)


def run_certificate(settings: CertificateSettings, command: str,
                    progress: Progress) -> tuple[Path, dict[str, TaskResult], bool]:
    """Write metrics.csv, stages.csv and summary.json into settings.out.

    Returns the folder, the results and whether the run was interrupted (Ctrl-C). Uses one thread. Raises
    ExperimentError before any work.
    """
    results: dict[str, TaskResult] = {}

    def found() -> dict[str, Any]:
        return {"results": {name: verdicts(result) for name, result in results.items()},
                "tuning": {name: {"scores": result.scores, "rate": result.rate}
                           for name, result in results.items()},
                "tuning_rule": "the rate with the least J of a run of the whole budget on a seed of its own",
                "diverged": {}}

    with study("certificate", settings, command, {"metrics": METRICS, "stages": STAGES}, found) as running:
        for task in choose("task", settings.tasks, TASKS):
            length = settings.lengths(task)[0]
            results[task.name] = TaskResult(tuned(
                _QUICK_RATES if settings.quick else RATES, lambda rate: score(task, rate, length), progress,  # noqa: B023
                f"{task.label}: choosing Adam's rate"))
            for seed in seed_numbers(settings.seeds):
                _run_seed(settings, task, seed, results[task.name], running, progress)
                running.save()
    return running.out, results, running.interrupted


def _run_seed(settings: CertificateSettings, task: Task, seed: int, result: TaskResult, running: Study,
              progress: Progress) -> None:
    """Adam and each rule on the same data from the same controls."""
    metrics, problem, rate = running.tables["metrics"], task.problem(seed), result.rate
    length, own_length = settings.lengths(task)
    with progress.task(f"{task.label}: Adam ({rate:g}), seed {seed}", 1) as advance:
        result.adam.append(adam(task.descent(seed), rate, length))
        metrics.add_all((task.name, "adam", seed, k, loss, *[None] * 8)
                        for k, loss in enumerate(result.adam[-1]))
        advance(1, result.adam[-1][-1])
    for name, rule in RULES.items():
        with progress.task(f"{task.label}: {LABELS[name]}, seed {seed}", own_length) as advance:
            records = _solve(problem, rule(), own_length, advance)
        result.records.setdefault(name, []).append(records)
        metrics.add(task.name, name, seed, 0, records[0].objective_before, *[None] * 8)
        for record in records:
            row = iteration_row(record)
            metrics.add(task.name, name, seed, *(_known(row[column]) for column in METRICS[3:]))
            running.tables["stages"].add_all(
                (task.name, name, seed, record.iteration, one.stage, one.name, one.gain, one.state_error,
                 one.costate_error, one.penalties.rho_state) for one in record.stages)


def adam(descent: Descent, rate: float, iterations: int) -> list[float]:
    """J before each iteration and after the last of torch.optim.Adam with its default moments; shorter where
    J diverges."""
    start, objective = descent
    controls = [control.clone().requires_grad_() for control in start]
    losses: list[float] = []
    for _, loss in zip(range(iterations),
                       descend(controls, lambda: objective(controls), torch.optim.Adam, rate), strict=False):
        losses.append(loss.item())
        if not isfinite(losses[-1]):
            return losses
    with torch.no_grad():
        return [*losses, objective(controls).item()]


def score(task: Task, rate: float, iterations: int) -> float:
    """The least J of Adam, on data and controls that no reported run uses; infinite where it diverged."""
    losses = adam(task.descent(TUNING_SEED), rate, iterations)
    return min(losses) if isfinite(losses[-1]) else inf


def _solve(problem: ControlProblem, rule: PenaltyRule, iterations: int,
           advance: Advance) -> list[IterationRecord]:
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
    goals = [min(losses) for losses in result.adam]
    when = [float(losses.index(goal)) for losses, goal in zip(result.adam, goals, strict=True)]
    return {name: {
        "rises": sum(record.objective_after > record.objective_before for records in runs
                     for record in records),
        "iterations": sum(len(records) for records in runs),
        "rejected_share": over_seeds([rejected_share(records) for records in runs]),
        "objective": over_seeds([records[-1].objective_after for records in runs]),
        "adam_objective": over_seeds(goals), "adam_iterations": over_seeds(when),
        "iterations_to_adam": reached([
            next((record.iteration for record in records if record.objective_after <= goal), None)
            for records, goal in zip(runs, goals, strict=False)]),
    } for name, runs in result.records.items()}
