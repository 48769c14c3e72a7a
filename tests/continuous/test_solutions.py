"""Solutions with known optima: Riccati, bang-bang, an obstacle; multipliers and residuals."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from continuous_builders import problem
from torch import Tensor

from builders import assert_close, normal
from pontryagin.continuous import (
    RK4,
    ContinuousProblem,
    Discretization,
    Euler,
    PiecewiseConstant,
    PiecewiseLinear,
    residual,
    solve,
    uniform,
)
from pontryagin.papers.control.problems import TIP, least_time, minimum_time, obstacle
from pontryagin.problem import ProblemError
from pontryagin.update import NewtonMSA

A, B = torch.tensor([[0.0, 1.0], [-1.0, 0.5]]).double(), torch.tensor([[0.0], [1.0]]).double()


def linear_quadratic(samples: int, steps: int) -> Discretization:
    """x' = A x + B u, L = 2 |x|^2 + u^2 / 2, Euler."""
    one = ContinuousProblem(lambda t, x, u: x @ A.mT + u @ B.mT, normal(samples, 2), 1, 4.0,
                            lambda t, x, u: 2 * x.square().sum(1) + 0.5 * u.square().sum(1))
    return Discretization(one, uniform(4.0, steps), Euler())


def riccati(on: Discretization) -> float:
    """J of the mean state by dynamic programming, and what the spread around it costs without control."""
    step = 4.0 / on.intervals
    moved, pushed = torch.eye(2).double() + step * A, step * B
    value, alone = torch.zeros(2, 2).double(), torch.zeros(2, 2).double()
    for _ in range(on.intervals):
        inner = pushed.mT @ value @ pushed + 0.5 * step
        gain = torch.linalg.solve(inner, pushed.mT @ value @ moved)
        value = 2 * step * torch.eye(2).double() + moved.mT @ value @ (moved - pushed @ gain)
        alone = 2 * step * torch.eye(2).double() + moved.mT @ alone @ moved
    mean = on.problem.initial_state.mean(0)
    apart = on.problem.initial_state - mean
    return float(mean @ value @ mean + (apart @ alone * apart).sum(1).mean())


@pytest.mark.parametrize("samples", [1, 7])
def test_linear_quadratic_is_riccati(samples: int) -> None:
    on = linear_quadratic(samples, 30)
    found = solve(on)
    assert found.iterations <= 3
    assert abs(found.objective - riccati(on)) < 1e-12 * riccati(on)
    assert found.violation == 0


def test_minimum_time_switches_within_a_step() -> None:
    on = minimum_time()
    found = solve(on, tolerance=1e-7)
    time, switch = least_time(*TIP.tolist())
    bang = found.values.flatten()
    assert abs(found.end - time) < 1e-3
    (last,) = (bang[:-1] > 0).logical_and(bang[1:] <= 0).nonzero()
    assert abs(float(found.t[last + 1]) - switch) <= float(found.t[1])
    assert int(((bang - bang.sign()).abs() > 1e-6).sum()) <= 1
    assert float(residual(found).residual.median()) < 1e-6


def test_an_obstacle_has_its_multipliers() -> None:
    """Bryson and Denham: J = 4 / (9 l) with l = 1/9, and on the boundary from 3 l to 1 - 3 l."""
    found = solve(obstacle(24), tolerance=1e-7)
    assert abs(found.objective - 4) < 2e-3
    assert float(found.states[:, 0, 0].max()) <= 1 / 9 + 1e-6
    touching = found.t[1:][found.path_multipliers[:, 0, 0] > 0]
    assert 1 / 3 - 0.05 < float(touching.min()) < float(touching.max()) < 2 / 3 + 0.05


def test_what_cannot_be_reached_is_said() -> None:
    stuck = ContinuousProblem(lambda t, x, u: 0 * x + u.square(), torch.zeros(1, 1).double(), 1, 1.0,
                              lambda t, x, u: u[:, 0].square(), terminal_constraint=lambda x: x + 1)
    with pytest.raises(ProblemError, match="still violated"):
        solve(Discretization(stuck, uniform(1.0, 3)), 0.5, updates=3)


@pytest.mark.parametrize("control", [PiecewiseConstant(), PiecewiseLinear(per_sample=True)], ids=str)
def test_residual_vanishes_with_the_mesh(control: object) -> None:
    """At the solution it is of second order in the step; away from it a grid of theta shows its size."""
    found = [residual(solve(Discretization(problem(), uniform(1.4, steps), control=control))).residual.mean()
             for steps in (8, 16)]
    assert 0 <= float(found[1]) < 0.5 * float(found[0])


def test_residual_is_the_maximum_of_the_hamiltonian() -> None:
    on = Discretization(problem(), uniform(1.4, 5))
    far = solve(on, minimizer=lambda stages, controls: (controls, 0))
    found = residual(far)
    t, x, p, theta = far.middle
    points = torch.cartesian_prod(torch.linspace(-3, 3, 121), torch.linspace(-3, 3, 121)).double()
    for n in range(5):
        def value(one: Tensor, n: int = n) -> Tensor:
            return on.problem.hamiltonian(t[n], x[n], p[n], one.expand(3, -1)).mean()

        most = float(torch.vmap(value)(points).max() - value(theta[n, 0]))
        assert most <= float(found.residual[n]) + 1e-9
        assert float(found.residual[n]) <= most + 0.01
    assert_close(found.switching[0], torch.func.grad(lambda one: on.problem.hamiltonian(
        t[0], x[0], p[0], one.expand(3, -1)).mean())(theta[0, 0]), 1e-12)


def test_values_of_a_finite_set() -> None:
    """The argmax over {0, 1} of a Hamiltonian linear in theta is where its slope points."""
    one = ContinuousProblem(lambda t, x, u: u - x, torch.zeros(1, 1).double(), 1, 1.0,
                            terminal_cost=lambda x, y: (x[:, 0] - 0.3).square(), bounds=(0.0, 1.0))
    found = solve(Discretization(one, uniform(1.0, 6)), 0.9, minimizer=lambda stages, controls: (controls, 0))
    over = residual(found, values=(0.0, 1.0))
    assert_close(over.argmax, (over.switching > 0).double(), 0)
    assert_close(over.residual, (over.switching * (over.argmax - 0.9)).squeeze(1), 1e-12)


def test_newton_from_anywhere_is_the_same_solution() -> None:
    on = Discretization(problem(), uniform(1.4, 6), RK4(), control=PiecewiseLinear())
    ends = [NewtonMSA(on.control_problem(), on.controls(normal(*on.shape, seed=seed))) for seed in range(3)]
    values = [solver.solve()[-1].objective_after for solver in ends]
    assert max(values) - min(values) < 1e-10


@pytest.mark.parametrize("control", [PiecewiseConstant, PiecewiseLinear])
def test_constraints_of_each_sample_with_its_own_control(control: type) -> None:
    """Two starts to 0.4 under u <= 0.5 + 0.1 x, path and terminal constraints: each as if it were alone."""
    def alone(starts: Tensor) -> Discretization:
        one = ContinuousProblem(lambda t, x, u: u - 0.5 * x, starts, 1, 1.0, lambda t, x, u: u[:, 0].square(),
                                terminal_constraint=lambda x: x - 0.4,
                                path_constraint=lambda t, x, u: u - 0.5 - 0.1 * x)
        return Discretization(one, uniform(1.0, 4), Euler(), control=control(per_sample=True))

    starts = torch.tensor([[0.0], [0.1]]).double()
    both = solve(alone(starts), tolerance=1e-7)
    single = [solve(alone(starts[n:n + 1]), tolerance=1e-7) for n in range(2)]
    assert both.violation <= 1e-7
    assert float(both.path_multipliers.max()) > 0.01
    assert_close(both.states[-1], torch.full((2, 1), 0.4).double(), 1e-6)
    for n, found in enumerate(single):
        assert_close(both.values[:, n], found.values[:, 0], 1e-4)
    assert abs(both.objective - sum(found.objective for found in single) / 2) < 1e-5 * both.objective


def van_der_pol(scale: float) -> Discretization:
    """L = scale (x^2 + y^2 + u^2)."""
    one = ContinuousProblem(
        lambda t, x, u: torch.stack([(1 - x[:, 1].square()) * x[:, 0] - x[:, 1] + u[:, 0], x[:, 0]], 1),
        torch.tensor([[0.0, 1.0]]).double(), 1, 5.0,
        lambda t, x, u: scale * (x.square().sum(1) + u[:, 0].square()))
    return Discretization(one, uniform(5.0, 10), control=PiecewiseLinear())


def fastest(scale: float) -> Discretization:
    """Minimum time, scale a unit of it."""
    one = minimum_time()
    return replace(one, mesh=uniform(3.0, 10), problem=replace(
        one.problem, running_cost=lambda t, x, u: scale * torch.ones_like(t)))


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize("make", [van_der_pol, fastest])
def test_the_unit_of_the_costs_does_not_matter(make: Callable[[float], Discretization], scale: float) -> None:
    plain, scaled = solve(make(1.0), rho=100.0), solve(make(scale), rho=100.0 * scale)
    assert abs(scaled.objective / scale - plain.objective) < 1e-9 * plain.objective
    assert_close(scaled.values, plain.values, 1e-6)


def test_single_precision() -> None:
    one = fastest(1.0)
    single = replace(one, problem=replace(one.problem, initial_state=one.problem.initial_state.float()))
    found, exact = solve(single), solve(one)
    assert found.values.dtype == torch.float32
    assert found.violation < 1e-5
    assert abs(found.end - exact.end) < 1e-4


def test_what_has_not_converged_is_no_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though there is no constraint that could be violated."""
    monkeypatch.setattr("pontryagin.continuous.solution._ITERATIONS", 2)
    with pytest.raises(ProblemError, match=r"may still fall by .* after 2 iterations of NewtonMSA: use"):
        solve(van_der_pol(1.0))


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda on: solve(on, torch.zeros(3)), r"finite values of shape \(30, 1\), found \(3,\)"),
    (lambda on: solve(on, float("nan")), "finite number to start from.*found nan"),
    (lambda on: solve(on, rho=0.0), "rho > 0 .* found 0.0"),
    (lambda on: solve(on, tolerance=float("nan")), "tolerance >= 0, found .* nan"),
    (lambda on: residual(solve(on), []), "at least one, found"),
    (lambda on: residual(solve(on), [0.0, float("nan")]), "finite values of the control"),
    (lambda on: on.refined(torch.zeros(3, 1)), r"refined: expected control values of shape \(30, 1\)"),
])
def test_wrong_requests(wrong: Callable[[Discretization], object], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        wrong(linear_quadratic(1, 30))


def test_dynamics_and_constraints_may_be_networks(recwarn: pytest.WarningsRecorder) -> None:
    """Whose weights are no controls: nothing of a solution has a graph, and weights have no gradient."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    one = ContinuousProblem(lambda t, x, u: net(torch.cat([x, u], 1)), normal(2, 2), 1, 1.0,
                            lambda t, x, u: x.square().sum(1) + u[:, 0].square(),
                            path_constraint=lambda t, x, u: net(torch.cat([x, u], 1))[:, :1] - 1)
    found = solve(Discretization(one, uniform(1.0, 3)))
    over = residual(found)
    kept = (found.values, found.states, found.costates, found.path_multipliers, over.residual, over.switching)
    assert not any(each.requires_grad for each in kept)
    assert all(weight.grad is None for weight in net.parameters())
    assert not recwarn.list
