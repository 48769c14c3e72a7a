"""The problems of `reproduce control`: dynamics, meshes, and the optima that they are measured by."""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt

import torch
from torch import Tensor

from pontryagin.continuous import (
    ContinuousProblem,
    Discretization,
    FreeTime,
    PiecewiseConstant,
    PiecewiseLinear,
    uniform,
)

F64 = torch.float64
OSCILLATOR = torch.tensor([[0.0, 1.0], [-1.0, 0.5]], dtype=F64)
"""An unstable oscillator, pushed in its second component."""
PUSH = torch.tensor([[0.0], [1.0]], dtype=F64)
WEIGHTS = (2.0, 0.5)
"""L = 2 |x|^2 + 0.5 u^2 of the linear-quadratic problems."""
TIP = torch.tensor([-1.2, 0.4], dtype=F64)
"""Where the minimum-time problem starts."""
MOST_FORCE = 5.0
"""Of the least-energy problem: without bounds the force would be 6 - 12 t."""
GRAVITY, SWING_TIME = 4.0, 3.0
DETUNING, INFIDELITY = 1.0, 10.0


@dataclass(frozen=True)
class Case:
    """A problem, its mesh, and what is known of it.

    optimum: J of the continuous problem, but of the linear-quadratic ones, where it is that of the
    discretized problem. source: how it is known. kind: "exact" (to 1e-10), "smooth" (to 1e-4) or "bang-bang".
    start: of all values of the control.
    """

    name: str
    title: str
    make: Callable[[], Discretization]
    optimum: float
    source: str
    kind: str = "smooth"
    start: float = 0.0
    rho: float = 100.0


def stack(*columns: Tensor) -> Tensor:
    """Entries of states."""
    return torch.stack(columns, 1)


def linear_quadratic(starts: Tensor) -> Discretization:
    """x' = A x + B u, L = 2 |x|^2 + u^2 / 2, T = 4."""
    problem = ContinuousProblem(
        lambda t, x, u: x @ OSCILLATOR.mT + u @ PUSH.mT, starts, 1, 4.0,
        running_cost=lambda t, x, u: WEIGHTS[0] * x.square().sum(1) + WEIGHTS[1] * u.square().sum(1))
    return Discretization(problem, uniform(4.0, 50))


def one_start() -> Tensor:
    """Of the linear-quadratic problem."""
    return torch.tensor([[1.0, 0.5]], dtype=F64)


def many_starts() -> Tensor:
    """A hundred, around (1, 0.5)."""
    return one_start() + 0.5 * torch.randn(100, 2, dtype=F64, generator=torch.Generator().manual_seed(0))


def _double_integrator(t: Tensor, x: Tensor, u: Tensor) -> Tensor:
    return stack(x[:, 1], u[:, 0])


def least_energy() -> Discretization:
    """x'' = u, |u| <= 5, from rest at 0 to rest at 1 in T = 1, L = u^2 / 2."""
    problem = ContinuousProblem(
        _double_integrator, torch.zeros(1, 2, dtype=F64), 1, 1.0, bounds=(-MOST_FORCE, MOST_FORCE),
        running_cost=lambda t, x, u: 0.5 * u[:, 0].square(),
        terminal_constraint=lambda x: x - x.new_tensor([1.0, 0.0]))
    return Discretization(problem, uniform(1.0, 50), control=PiecewiseLinear())


def minimum_time() -> Discretization:
    """x'' = u, |u| <= 1, to rest at 0 in the least T."""
    problem = ContinuousProblem(
        _double_integrator, TIP.unsqueeze(0), 1, FreeTime(3.0, 0.5, 10.0), bounds=(-1.0, 1.0),
        running_cost=lambda t, x, u: torch.ones_like(t), terminal_constraint=lambda x: x)
    return Discretization(problem, uniform(3.0, 50))


def obstacle(intervals: int = 48) -> Discretization:
    """Bryson and Denham: x'' = u, x <= 1/9, x and x' from (0, 1) to (0, -1) in T = 1, L = u^2 / 2."""
    problem = ContinuousProblem(
        _double_integrator, torch.tensor([[0.0, 1.0]], dtype=F64), 1, 1.0,
        running_cost=lambda t, x, u: 0.5 * u[:, 0].square(),
        terminal_constraint=lambda x: x - x.new_tensor([0.0, -1.0]),
        path_constraint=lambda t, x, u: x[:, :1] - 1 / 9)
    return Discretization(problem, uniform(1.0, intervals), control=PiecewiseLinear())


def van_der_pol() -> Discretization:
    """x' = (1 - y^2) x - y + u, y' = x, from (0, 1), L = x^2 + y^2 + u^2, T = 10."""
    problem = ContinuousProblem(
        lambda t, x, u: stack((1 - x[:, 1].square()) * x[:, 0] - x[:, 1] + u[:, 0], x[:, 0]),
        torch.tensor([[0.0, 1.0]], dtype=F64), 1, 10.0,
        running_cost=lambda t, x, u: x.square().sum(1) + u[:, 0].square())
    return Discretization(problem, uniform(10.0, 100), control=PiecewiseLinear())


def pendulum() -> Discretization:
    """x'' = 4 sin x - 0.1 x' + u, from hanging (x = pi) to standing at rest, L = u^2 / 2, T = 3."""
    problem = ContinuousProblem(
        lambda t, x, u: stack(x[:, 1], GRAVITY * x[:, 0].sin() - 0.1 * x[:, 1] + u[:, 0]),
        torch.tensor([[pi, 0.0]], dtype=F64), 1, SWING_TIME,
        running_cost=lambda t, x, u: 0.5 * u[:, 0].square(), terminal_constraint=lambda x: x)
    return Discretization(problem, uniform(SWING_TIME, 60), control=PiecewiseLinear())


def fishing(intervals: int = 120) -> Discretization:
    """Lotka-Volterra: prey and predators near (1, 1) by fishing both, 0 <= u <= 1, T = 12 (Sager 2006)."""
    problem = ContinuousProblem(
        lambda t, x, u: stack(x[:, 0] - x[:, 0] * x[:, 1] - 0.4 * x[:, 0] * u[:, 0],
                              x[:, 0] * x[:, 1] - x[:, 1] - 0.2 * x[:, 1] * u[:, 0]),
        torch.tensor([[0.5, 0.7]], dtype=F64), 1, 12.0, bounds=(0.0, 1.0),
        running_cost=lambda t, x, u: (x - 1).square().sum(1))
    return Discretization(problem, uniform(12.0, intervals), control=PiecewiseConstant())


def two_level() -> Discretization:
    """A spin x in a field (u, 0, 1), from up towards down: L = u^2 / 2, Phi = 10 (1 + z), T = 5."""
    problem = ContinuousProblem(
        lambda t, x, u: stack(-DETUNING * x[:, 1], DETUNING * x[:, 0] - u[:, 0] * x[:, 2],
                              u[:, 0] * x[:, 1]),
        torch.tensor([[0.0, 0.0, 1.0]], dtype=F64), 1, 5.0, bounds=(-4.0, 4.0),
        running_cost=lambda t, x, u: 0.5 * u[:, 0].square(),
        terminal_cost=lambda x, target: INFIDELITY * (1 + x[:, 2]))
    return Discretization(problem, uniform(5.0, 80), control=PiecewiseLinear())


def least_time(position: float, speed: float) -> tuple[float, float]:
    """T and the switching time of the minimum-time problem from left of the switching curve: full thrust
    first."""
    top = sqrt(0.5 * speed ** 2 - position)
    return 2 * top - speed, top - speed
