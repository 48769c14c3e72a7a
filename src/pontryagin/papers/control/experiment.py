"""`pontryagin reproduce control`: classical problems by the maximum principle, their optima, and scipy."""

from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import torch

from pontryagin.continuous import Residual, Solution, residual, solve
from pontryagin.continuous.solution import Minimizer
from pontryagin.papers.control.integer import Rounded, rounded
from pontryagin.papers.control.problems import CASES, Case, fishing
from pontryagin.papers.control.single_shooting import lbfgs_b
from pontryagin.problem import ControlProblem, Controls, ProblemError
from pontryagin.run.errors import need, unknown
from pontryagin.run.option import check_numbers, option
from pontryagin.run.progress import Progress
from pontryagin.run.study import Study, study
from pontryagin.update import NewtonMSA

TABLES = {"results": ("problem", "method", "objective", "optimum", "relative_error", "violation", "residual",
                      "iterations", "evaluations", "multiplier_updates", "seconds"),
          "trajectories": ("problem", "quantity", "component", "t", "value"),
          "integer": ("intervals", "relaxed", "rounded", "improved", "flips")}
METHODS = ("newton", "l-bfgs-b")
FEASIBLE = 1e-6
"""The violation of a constraint up to which multipliers are updated."""
DRAWN = 3
"""Samples of a population whose states are kept."""


@dataclass(frozen=True)
class ControlSettings:
    """Classical problems of optimal control: J beside the known optimum, the residual of the maximum
    principle, iterations, and seconds beside scipy's L-BFGS-B by direct single shooting on the same
    gradients. Writes results.csv, trajectories.csv, integer.csv, summary.json, figures and report.html.
    """

    out: Path = option("folder for the results, new or empty", Path("runs/control"))
    problems: tuple[str, ...] | None = option(f"all, or names with commas: {', '.join(CASES)}", None)
    repeats: int = option("runs of every method, of which the fastest is reported", 3, least=1)
    overwrite: bool = option("replace the run that is in the folder", False)

    def __post_init__(self) -> None:
        check_numbers(self)
        if wrong := sorted(set(self.problems or ()) - CASES.keys()):
            raise unknown("problem", wrong, CASES)

    @property
    def cases(self) -> list[Case]:
        """Those that were asked for."""
        return [case for case in CASES.values() if self.problems is None or case.name in self.problems]


@dataclass(frozen=True)
class Found:
    """What a method found. evaluations: passes through all stages, of first and second derivatives too."""

    solution: Solution
    seconds: float
    evaluations: int


@dataclass
class ControlResults:
    """What has been found so far, by problem and method."""

    found: dict[str, dict[str, Found]]
    residuals: dict[str, Residual]
    failed: dict[str, dict[str, str]]
    integer: list[Rounded]

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        return {"feasible": FEASIBLE, "failed": self.failed,
                "optima": {name: {"value": CASES[name].optimum(), "source": CASES[name].source}
                           for name in self.found}}


def run_control(settings: ControlSettings, command: str,
                progress: Progress) -> tuple[Path, ControlResults, bool]:
    """Write results.csv, trajectories.csv, integer.csv and summary.json into settings.out.

    Returns the folder, the results and whether the run was interrupted (Ctrl-C). Uses one thread. Raises
    ExperimentError before any work.
    """
    need("scipy", "reproduce control")
    results = ControlResults({}, {}, {}, [])
    with study("control", settings, command, TABLES, results.summary) as running:
        for method in METHODS:  # what is imported at first use belongs to nobody's seconds
            attempt(CASES["linear-quadratic"], method)
        for case in settings.cases:
            results.found[case.name] = {}
            for method in METHODS:
                _run(case, method, settings.repeats, results, running, progress)
            if "newton" in results.found[case.name]:
                results.residuals[case.name] = residual(results.found[case.name]["newton"].solution)
                _write(running, case.name, results)
            if case.name == "fishing":
                _round(results, running, progress)
            running.save()
    return running.out, results, running.interrupted


def attempt(case: Case, method: str) -> Found:
    """One run of a method; seconds of process time, from the problem to the solution."""
    spent: list[int] = []

    def newton(problem: ControlProblem, controls: Controls) -> tuple[Controls, int]:
        solver = NewtonMSA(problem, controls)
        records = solver.solve()
        spent.append(sum(record.evaluations for record in records))
        return solver.controls, len(records)

    def shooting(problem: ControlProblem, controls: Controls) -> tuple[Controls, int]:
        return lbfgs_b(problem, controls, spent.append)

    minimizer: Minimizer = newton if method == "newton" else shooting
    began = process_time()
    solution = solve(case.make(), case.start, minimizer=minimizer, tolerance=FEASIBLE)
    return Found(solution, process_time() - began, sum(spent))


def _run(case: Case, method: str, repeats: int, results: ControlResults, running: Study,
         progress: Progress) -> None:
    with progress.task(f"{case.title}: {method}", repeats) as advance:
        try:
            runs = []
            for number in range(repeats):
                runs.append(attempt(case, method))
                advance(number + 1, None)
        except ProblemError as error:
            results.failed.setdefault(case.name, {})[method] = str(error)
            progress.say(f"{case.title}: {method}: {error}")
            return
    best = min(runs, key=lambda run: run.seconds)
    results.found[case.name][method] = best
    found, optimum = best.solution, case.optimum()
    running.tables["results"].add(
        case.name, method, found.objective, optimum, abs(found.objective - optimum) / abs(optimum),
        found.violation, float(residual(found).residual.mean()), found.iterations, best.evaluations,
        found.multiplier_updates, best.seconds)


def _write(running: Study, name: str, results: ControlResults) -> None:
    """The solution over t: states and costates of some samples, control, switching function, residual."""
    found, over = results.found[name]["newton"].solution, results.residuals[name]
    nodes, starts = found.t.tolist(), found.t[:len(found.values)].tolist()
    middles = over.t.tolist()
    columns: list[tuple[str, list[float], torch.Tensor]] = [
        ("state", nodes, found.states[:, :DRAWN].flatten(1)),
        ("costate", nodes, found.costates[:, :DRAWN].flatten(1)),
        ("control", starts, found.values), ("switching", middles, over.switching),
        ("residual", middles, over.residual.unsqueeze(1))]
    running.tables["trajectories"].add_all(
        (name, quantity, component, t, value) for quantity, times, values in columns
        for component, column in enumerate(values.mT.tolist())
        for t, value in zip(times, column, strict=True))


def _round(results: ControlResults, running: Study, progress: Progress) -> None:
    meshes = (60, 120, 240)
    with progress.task("Lotka-Volterra fishing, integer", len(meshes)) as advance:
        for number, intervals in enumerate(meshes, 1):
            one = rounded(fishing(intervals))
            results.integer.append(one)
            running.tables["integer"].add(intervals, one.relaxed, one.rounded, one.improved, one.flips)
            advance(number, None)
