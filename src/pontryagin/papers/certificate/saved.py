"""The results of `reproduce certificate`, read again from the files of its folder."""

import json
from collections.abc import Mapping
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

from pontryagin.hamiltonian import Penalties
from pontryagin.papers.certificate.experiment import METRICS, STAGES, TaskResult
from pontryagin.run.tables import Table, read_table
from pontryagin.update import IterationRecord
from pontryagin.update.record import StageRecord


def read_results(folder: Path) -> dict[str, TaskResult]:
    """By task, as far as whole seeds of a method had been measured. What the files leave out, J without
    running cost, rho of the costates and seconds, is no part of report.html. Raises ReportError."""
    metrics = read_table(folder / "metrics.csv", METRICS[:2], METRICS[2:])
    stages = read_table(folder / "stages.csv", (*STAGES[:2], STAGES[5]), (*STAGES[2:5], *STAGES[6:]))
    tuning = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["tuning"]
    return {task: _task(metrics.where(task=task), stages.where(task=task), tuning[task]["scores"])
            for task in metrics.values("task") if task in tuning}


def _task(metrics: Table, stages: Table, scores: Mapping[str, float | None]) -> TaskResult:
    result = TaskResult({float(rate): inf if score is None else score for rate, score in scores.items()})
    for method in metrics.values("method"):
        for one in metrics.where(method=method).seeds():
            if method == "adam":
                result.adam.append([nan if isnan(loss) else float(loss) for loss in one["objective"]])
            elif len(one) > 1:
                own = stages.where(method=method, seed=one["seed"][0])
                result.records.setdefault(method, []).append(_records(one, own))
    return result


def _records(metrics: Table, stages: Table) -> list[IterationRecord]:
    """Of the iterations whose stages are there."""
    found, before = [], float(metrics["objective"][0])
    for number in range(1, len(metrics)):
        row: dict[str, Any] = {name: float(metrics[name][number]) for name in METRICS[3:]}
        own = stages.where(iteration=row["iteration"])
        if not len(own):
            break
        after = row["objective"]
        found.append(IterationRecord(
            int(row["iteration"]), before, after, after, before - row["achieved"],
            tuple(_stage(own, place) for place in range(len(own))), bool(row["accepted"]),
            int(row["rejected"]), 0, 0.0))
        before = after
    return found


def _stage(rows: Table, place: int) -> StageRecord:
    """Before the first stage with a control there is none."""
    gain, state, costate, rho = (float(rows[name][place])
                                 for name in ("gain", "state_error", "costate_error", "rho_state"))
    return StageRecord(int(rows["stage"][place]), str(rows["name"][place]), gain, state, costate,
                       Penalties(rho, rho), upstream=place > 0)
