"""NewtonMSA: exact Hessians, argmins over boxes, one iteration on linear-quadratic problems."""

import copy

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
from pontryagin.hamiltonian.second_order import equal_stages, linearize, reduced_hessian
from pontryagin.maximizer.box_quadratic import minimize_in_box
from pontryagin.problem import (
    Binary,
    ControlProblem,
    EntryBox,
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
