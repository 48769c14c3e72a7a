"""Small problems in continuous time, float64."""

import torch
from torch import Tensor

from builders import normal
from pontryagin.continuous import (
    ContinuousProblem,
    Discretization,
    FreeTime,
    Integrator,
    PiecewiseConstant,
    PiecewiseLinear,
)
from pontryagin.problem import SquaredError

MESH = torch.tensor([0.0, 0.3, 0.5, 1.1, 1.4], dtype=torch.float64)
"""Of unequal steps."""
CONTROLS = {"constant": PiecewiseConstant(), "linear": PiecewiseLinear(),
            "per sample": PiecewiseConstant(per_sample=True),
            "linear per sample": PiecewiseLinear(per_sample=True)}


def swing(t: Tensor, x: Tensor, theta: Tensor) -> Tensor:
    """Nonlinear in everything."""
    return torch.stack([x[:, 1] + 0.3 * t.cos() * theta[:, 1],
                        -x[:, 0].sin() + theta[:, 0] * (1 + 0.2 * x[:, 0]) - 0.1 * theta[:, 0] ** 2 * t], 1)


def effort(t: Tensor, x: Tensor, theta: Tensor) -> Tensor:
    """L of states, controls and t."""
    return (1 + t) * x[:, 0].square() + (theta ** 2).sum(1) * (1 + 0.1 * x[:, 1].cos())


def problem(samples: int = 3, free: bool = False) -> ContinuousProblem:
    """Both costs, two controls, perhaps a free end time."""
    return ContinuousProblem(swing, normal(samples, 2, seed=1), 2,
                             FreeTime(1.4, 0.5, 3.0) if free else 1.4, running_cost=effort,
                             terminal_cost=SquaredError(), target=normal(samples, 2, seed=2))


def discretized(integrator: Integrator, control: str = "constant", free: bool = False,
                substeps: int = 1) -> Discretization:
    """On MESH."""
    return Discretization(problem(free=free), MESH, integrator, substeps, CONTROLS[control])
