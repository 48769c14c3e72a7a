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
    """A problem on its mesh, and what is known of it.

    title: for people. optimum: J of the continuous problem, but of the linear-quadratic ones that of the
    discretized one. source: how it is known. start: of all values of the control. switch: where an optimal
    control jumps.
    """

    name: str
    title: str
    make: Callable[[], Discretization]
    optimum: Callable[[], float]
    source: str
    start: float = 0.0
    switch: float | None = None


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


def fishing(intervals: int = 200) -> Discretization:
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


def riccati(on: Discretization) -> float:
    """J of the linear-quadratic problem on its mesh, by dynamic programming on the mean state; the spread
    around it runs without control.

    A step of RK4 is x' = F x + G u, its cost the quadratic form of (x, u) that Simpson's weights make of L
    at the four stages of the step, each of them linear in (x, u).
    """
    step, width = float(on.mesh[1]), len(OSCILLATOR)
    slope = torch.cat([OSCILLATOR, PUSH], 1)
    joint = torch.eye(width + 1, dtype=F64)
    points, slopes = [joint], [slope]
    for ahead in (0.5, 0.5, 1.0):
        points.append(joint.clone())
        points[-1][:width] += ahead * step * slopes[-1]
        slopes.append(slope @ points[-1])
    weights = torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=F64) * step / 6
    moved = joint[:width] + sum(w * k for w, k in zip(weights, slopes, strict=True))
    cost = torch.diag(torch.tensor([WEIGHTS[0]] * width + [WEIGHTS[1]], dtype=F64))
    cost = sum((w * point.mT @ cost @ point for w, point in zip(weights, points, strict=True)),
               torch.zeros_like(cost))
    best = free = torch.zeros(width, width, dtype=F64)
    for _ in range(on.intervals):
        whole = cost + moved.mT @ best @ moved
        best = whole[:width, :width] - whole[:width, width:] @ whole[width:, :width] / whole[width, width]
        free = (cost + moved.mT @ free @ moved)[:width, :width]
    mean = on.problem.initial_state.mean(0)
    apart = on.problem.initial_state - mean
    return float(mean @ best @ mean + (apart @ free * apart).sum(1).mean())


def bounded_energy() -> float:
    """J of `least_energy`: u = c (1 - 2 t) cut at +-MOST_FORCE, c such that x(1) = 1, found by bisection."""
    def reached(c: float) -> tuple[float, float]:
        """x(1), and J."""
        cut = max(0.0, 0.5 * (1 - MOST_FORCE / c))
        return (MOST_FORCE * cut * (1 - cut) + 4 * c * (0.5 - cut) ** 3 / 3,
                MOST_FORCE ** 2 * cut + c ** 2 * (1 - 2 * cut) ** 3 / 6)

    low, high = MOST_FORCE, 100.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if reached(middle)[0] < 1 else (low, middle)
    return reached(low)[1]


def least_time(position: float, speed: float) -> tuple[float, float]:
    """T and the switching time of the minimum-time problem from left of the switching curve: full thrust
    first."""
    top = sqrt(0.5 * speed ** 2 - position)
    return 2 * top - speed, top - speed


CASES = {case.name: case for case in (
    Case("linear-quadratic", "Linear-quadratic", lambda: linear_quadratic(one_start()),
         lambda: riccati(linear_quadratic(one_start())), "Riccati recursion on the same mesh"),
    Case("population", "Linear-quadratic, 100 starts with one control",
         lambda: linear_quadratic(many_starts()), lambda: riccati(linear_quadratic(many_starts())),
         "Riccati recursion for the mean state"),
    Case("least-energy", "Double integrator, least energy, bounds active", least_energy, bounded_energy,
         "in closed form"),
    Case("minimum-time", "Double integrator, minimum time", minimum_time,
         lambda: least_time(*TIP.tolist())[0], "in closed form: bang-bang",
         switch=least_time(*TIP.tolist())[1]),
    Case("obstacle", "Bryson and Denham's obstacle", obstacle, lambda: 4.0, "in closed form, 4 / (9 l)"),
    Case("van-der-pol", "Van der Pol oscillator", van_der_pol, lambda: 2.87314385118,
         "collocation of the two-point boundary value problem"),
    Case("pendulum", "Swing-up of a pendulum", pendulum, lambda: 10.1145328820,
         "collocation of the two-point boundary value problem", start=0.1),
    Case("fishing", "Lotka-Volterra fishing, relaxed", fishing, lambda: 1.34408,
         "Sager 2006; singular arc"),
    Case("two-level", "A two-level system in a field", two_level, lambda: 1.79214397424,
         "collocation of the two-point boundary value problem", start=0.3),
)}
"""In the order of tables. The boundary value problems are solved again by tests/control."""
