"""NewtonMSA: exact Hessians, argmins over boxes, one iteration on linear-quadratic problems."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from builders import (
    assert_close,
    linear_problem,
    mixed_problem,
    normal,
    objective,
    split_problem,
    tanh_problem,
)
from pontryagin.continuous import ContinuousProblem, Discretization, solve, uniform
from pontryagin.hamiltonian.second_order import equal_stages, linearize, reduced_hessian
from pontryagin.maximizer.box_quadratic import minimize_in_box
from pontryagin.problem import (
    Binary,
    ControlProblem,
    EntryBox,
    NonFiniteError,
    ProblemError,
    Quadratic,
    SquaredError,
    euler,
    stage,
)
from pontryagin.trajectory import propagate
from pontryagin.update import NewtonMSA

PROBLEMS = {
    "tanh": lambda: tanh_problem(cost=Quadratic(0.3)), "split": split_problem, "linear": linear_problem,
    "mixed": lambda: mixed_problem(("norm",), ("function",), seed=3),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_derivatives(name: str) -> None:
    """Costates, gradient and Hessian of J against autograd through the whole problem."""
    problem = PROBLEMS[name]()
    controls, groups = problem.initial_controls(), equal_stages(problem)
    sizes = [one.size for one in problem.stages]
    found = propagate(problem, controls)
    linear = linearize(problem, groups, controls, found.states)
    for costate, expected in zip(linear.costates, found.costates, strict=True):
        assert_close(costate, expected.flatten(1), 1e-12)

    def cost(flat: Tensor) -> Tensor:
        return objective(problem, flat.split(sizes))

    flat = torch.cat(controls)
    assert_close(-linear.gradient, torch.func.grad(cost)(flat), 1e-12)
    assert_close(reduced_hessian(problem, groups, controls, found.states, linear),
                 torch.autograd.functional.hessian(cost, flat), 1e-11)
    convex = reduced_hessian(problem, groups, controls, found.states, linear, convex=True)
    assert float(torch.linalg.eigvalsh(convex)[0]) > -1e-10


@pytest.mark.parametrize("seed", range(8))
def test_argmin_over_a_box(seed: int) -> None:
    """Against a long projected gradient descent; half of the bounds bind."""
    root, gradient = normal(6, 6, seed=seed), 3 * normal(6, seed=seed + 100)
    hessian = root @ root.mT + 0.3 * torch.eye(6)
    low, high = -normal(6, seed=seed + 200).abs() * 0.5, normal(6, seed=seed + 300).abs() * 0.5
    if seed % 2:
        low[::2], high[1::2] = -torch.inf, torch.inf
    slow, rate = torch.zeros(6, dtype=torch.float64), 1 / float(torch.linalg.eigvalsh(hessian)[-1])
    for _ in range(6000):
        slow = (slow - rate * (gradient + hessian @ slow)).clamp(low, high)
    assert_close(minimize_in_box(gradient, hessian, low, high), slow, 1e-9)


A, B = 0.6 * normal(3, 3, seed=1), normal(3, 2, seed=2)


def controlled(x: Tensor, theta: dict[str, Tensor]) -> Tensor:
    return x @ A.mT + theta["u"] @ B.mT


def regulator(**more: object) -> ControlProblem:
    stages = [stage(controlled, {"u": torch.zeros(2).double()}, running_cost=Quadratic(0.7), **more)
              for _ in range(6)]
    return ControlProblem(stages, SquaredError(), normal(4, 3, seed=4), normal(4, 3, seed=5))


def test_linear_quadratic_takes_one_iteration() -> None:
    solver = NewtonMSA(regulator())
    first = solver.step()
    second = solver.step()
    assert first.accepted
    assert abs(first.predicted - (first.objective_before - first.objective_after)) < 1e-10 * first.predicted
    assert second.optimality_gap < 1e-20 * first.optimality_gap


def test_bounds_hold_and_bind() -> None:
    """theta is the projection of theta - dJ/dtheta; the bounds are half of what it would be without."""
    free = NewtonMSA(regulator())
    free.solve()
    most = 0.5 * float(torch.cat(free.controls).abs().max())
    problem = regulator(admissible=EntryBox((-most, -torch.inf), (most, 0.3 * most)))
    solver = NewtonMSA(problem)
    solver.solve()
    theta, low, high = torch.stack(solver.controls), *problem.stages[0].admissible.bounds(solver.controls[0])
    linear = linearize(problem, equal_stages(problem), solver.controls,
                       propagate(problem, solver.controls).states)
    assert ((theta == low) | (theta == high)).any()
    assert_close((theta + linear.gradient.view(-1, 2)).clamp(low, high), theta, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_ends_where_rounding_hides_the_rest(dtype: torch.dtype) -> None:
    problem = tanh_problem(cost=Quadratic(0.3))
    layer = problem.stages[0].dynamics.dynamics
    stages = euler(copy.deepcopy(layer.module).to(dtype), 0.5, 3, running_cost=Quadratic(0.3))
    solver = NewtonMSA(ControlProblem(stages, SquaredError(), problem.initial_state.to(dtype),
                                      problem.target.to(dtype)))
    records = solver.solve(100)
    assert len(records) < 60
    least = max(1e-12, 50 * torch.finfo(dtype).eps)
    assert records[-1].optimality_gap <= least * (1 + abs(records[-1].objective_after))


@pytest.mark.parametrize("seed", range(3))
def test_networks_fall_to_a_minimum(seed: int) -> None:
    """J never rises, and the gradient vanishes at the end, though the Hessian is indefinite on the way."""
    problem = tanh_problem(seed=seed, cost=Quadratic(0.05))
    solver = NewtonMSA(problem)
    records = solver.solve(60)
    assert all(record.objective_after <= record.objective_before + 1e-13 for record in records)
    end = linearize(problem, equal_stages(problem), solver.controls,
                    propagate(problem, solver.controls).states)
    assert float(end.gradient.abs().max()) < 1e-6


def test_other_sets_are_refused() -> None:
    stages = [stage(torch.nn.Linear(2, 2).double(), admissible=Binary())]
    problem = ControlProblem(stages, SquaredError(), normal(3, 2), normal(3, 2))
    with pytest.raises(ProblemError, match="an interval for each entry"):
        NewtonMSA(problem)


def stretch(cost: Callable[[Tensor], Tensor], start: float, high: float = torch.inf) -> NewtonMSA:
    """Four steps x + u whose running cost is a function of u."""
    def moved(x: Tensor, theta: dict[str, Tensor]) -> Tensor:
        return torch.cat([x[:, :1] + theta["u"], x[:, 1:] + cost(theta["u"])], 1)

    stages = [stage(moved, {"u": torch.full((1,), start).double()}, admissible=EntryBox((-high,), (high,)))
              for _ in range(4)]
    return NewtonMSA(ControlProblem(stages, lambda x, target: x[:, 1], torch.zeros(1, 2).double(),
                                    torch.zeros(1).double()))


def test_controls_may_be_as_large_as_states() -> None:
    """Units of x of 1e30 change J by their square and nothing else."""
    def regulated(size: float) -> float:
        on = Discretization(ContinuousProblem(
            lambda t, x, u: u - x, torch.full((1, 1), size, dtype=torch.float64), 1, 1.0,
            lambda t, x, u: x[:, 0].square() + u[:, 0].square()), uniform(1.0, 5))
        return solve(on).objective

    assert regulated(1e30) == pytest.approx(1e60 * regulated(1.0), rel=1e-12)


@pytest.mark.parametrize(("cost", "start"), [
    (lambda u: u, 0.0), (lambda u: -u ** 2, 0.1), (lambda u: -u ** 2, 0.0), (lambda u: u ** 3, -0.1),
    (lambda u: -u.exp(), 0.1), (lambda u: -(1 - u).log(), 0.5), (lambda u: u.abs().sqrt() - u, 0.5)],
    ids=["linear", "concave", "maximum", "cubic", "exponential", "logarithm", "singular"])
def test_costs_without_a_minimum_end_in_one_line(cost: Callable[[Tensor], Tensor], start: float) -> None:
    with pytest.raises(ProblemError, match=r"iteration \d+: J = .* it seems to have no minimum; bound"):
        stretch(cost, start).solve(200)


def test_derivatives_that_are_not_finite_are_named() -> None:
    """At u = 0 the slope of |u|^1.5 is 0 and its curvature infinite."""
    with pytest.raises(NonFiniteError, match="iteration 1: J = 0 is finite, but not its derivatives"):
        stretch(lambda u: u.abs() ** 1.5, 0.0).step()


def test_values_that_are_not_finite_are_not_accepted() -> None:
    """u - log u is NaN left of 0, where the first Newton steps from 5 end; its minimum is 1 at u = 1."""
    solver = stretch(lambda u: u - u.log(), 5.0)
    records = solver.solve(60)
    assert_close(torch.cat(solver.controls), torch.ones(4).double(), 1e-6)
    assert all(record.objective_after <= record.objective_before for record in records)


@pytest.mark.parametrize("cost", [lambda u: -u ** 2, lambda u: u ** 4 - u ** 2], ids=["corner", "inside"])
def test_a_maximum_is_left(cost: Callable[[Tensor], Tensor]) -> None:
    """At u = 0 the gradient vanishes and J is largest; all of its entries end at a minimum."""
    solver = stretch(cost, 0.0, high=3.0)
    solver.solve(60)
    found = torch.cat(solver.controls).abs()
    expected = 3.0 if cost(torch.tensor(3.0)) < -1 else 0.5 ** 0.5
    assert_close(found, torch.full((4,), expected).double(), 1e-6)


def test_flat_costs_are_followed() -> None:
    """exp(-u) has no minimum either, but the promise vanishes: it ends, J being what rounding leaves."""
    records = stretch(lambda u: (-u).exp(), 0.0).solve(100)
    assert len(records) < 60
    assert records[-1].objective_after < 1e-10
