"""What the pictures of the sine need beside the metrics: states over time and the fitted function."""

from math import pi

import torch

from pontryagin.papers.sine.task import STEP_SIZE, Theta, inputs_at, predict, total, trajectory
from pontryagin.run.files import Table


@torch.no_grad()
def write_states(table: Table, figure: str, method: str, theta: Theta) -> None:
    """Columns figure, method, x, time, component, state: five inputs, 21 times, 5 components."""
    points = torch.linspace(-pi, pi, 5, dtype=torch.float64)
    for step, state in enumerate(trajectory(theta, inputs_at(points))):
        for x, components in zip(points.tolist(), state.tolist(), strict=True):
            for component, value in enumerate(components):
                table.add(figure, method, x, step * STEP_SIZE, component, value)
    table.flush()


@torch.no_grad()
def write_fit(table: Table, figure: str, method: str, theta: Theta) -> None:
    """Columns figure, method, x, target, prediction: 101 inputs."""
    points = torch.linspace(-pi, pi, 101, dtype=torch.float64)
    prediction = total(predict(theta, inputs_at(points)))
    for row in zip(points.tolist(), points.sin().tolist(), prediction.tolist(), strict=True):
        table.add(figure, method, *row)
    table.flush()
