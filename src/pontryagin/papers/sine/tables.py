"""The tables of a run of the sine: their columns, text and numbers, written and read."""

from dataclasses import dataclass
from math import pi
from pathlib import Path
from typing import Any

import torch

from pontryagin.papers.sine.task import SineTask, Theta, total
from pontryagin.run.files import Table as Written
from pontryagin.run.tables import Table, read_summary, read_table

METRICS = (("figure", "method"), ("seed", "iteration", "evaluations", "seconds", "train_loss", "test_loss",
                                  "objective", "accepted", "rho", "optimality_gap", "rejected"))
"""Columns of metrics.csv: a row for every seed and iteration, 0 before training; seconds of training and
evaluations (propagations) since the start of it; losses in the units of the terminal cost; objective: J, the
train loss and the regularizer."""
STAGES = (("figure", "method"), ("seed", "iteration", "stage", "gain", "state_error", "costate_error"))
"""Columns of stages.csv: Hamiltonian gain and feasibility errors (squared), means over samples."""
STATES = (("figure", "method"), ("x", "time", "component", "state"))
"""Columns of states.csv: the final controls' trajectories, first seed."""
FIT = (("figure", "method"), ("x", "target", "prediction"))
"""Columns of fit.csv: the final controls' function, first seed."""


@dataclass(frozen=True)
class SineTables:
    """A folder in memory. Tables that were not written are empty."""

    metrics: Table
    stages: Table
    states: Table
    fit: Table
    summary: dict[str, Any]


def read_folder(folder: Path) -> SineTables:
    """metrics.csv and summary.json must be there. Raises ReportError."""
    return SineTables(read_table(folder / "metrics.csv", *METRICS),
                      read_table(folder / "stages.csv", *STAGES, optional=True),
                      read_table(folder / "states.csv", *STATES, optional=True),
                      read_table(folder / "fit.csv", *FIT, optional=True),
                      read_summary(folder / "summary.json"))


def first_seed(table: Table, figure: str, method: str) -> Table:
    """A method's rows for one figure and the first seed that it was run with."""
    rows = table.where(figure=figure, method=method)
    return rows.where(seed=rows["seed"].min()) if len(rows) else rows


@torch.no_grad()
def write_states(table: Written, task: SineTask, method: str, theta: Theta) -> None:
    """Columns figure, method, x, time, component, state: five inputs, all times, all components."""
    points = torch.linspace(-pi, pi, 5, dtype=torch.float64)
    for step, state in enumerate(task.trajectory(theta, task.inputs_at(points))):
        for x, components in zip(points.tolist(), state.tolist(), strict=True):
            for component, value in enumerate(components):
                table.add(task.figure, method, x, step * task.setup.delta, component, value)
    table.flush()


@torch.no_grad()
def write_fit(table: Written, task: SineTask, method: str, theta: Theta) -> None:
    """Columns figure, method, x, target, prediction: 101 inputs."""
    points = torch.linspace(-pi, pi, 101, dtype=torch.float64)
    prediction = total(task.predict(theta, task.inputs_at(points)))
    for row in zip(points.tolist(), points.sin().tolist(), prediction.tolist(), strict=True):
        table.add(task.figure, method, *row)
    table.flush()
