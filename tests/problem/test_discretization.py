"""Euler steps, whole and split at their affine maps."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from builders import TanhAffine, assert_close, normal, objective, scale_and_shift, split_problem, tanh_problem
from pontryagin.problem import (
    ControlProblem,
    ProblemError,
    Quadratic,
    SquaredError,
    euler,
    split_euler,
    stage,
)


def test_a_step_adds_the_step_size_times_f() -> None:
    module = TanhAffine(3)
    x = normal(4, 3)
    for one in euler(module, 0.25, 2):
        assert_close(one(x, one.start), x + 0.25 * module(x).detach(), 1e-14)
        assert one.step_size == 0.25


def test_functions_and_lists_of_modules() -> None:
    start = {"scale": torch.tensor(2.0, dtype=torch.float64), "shift": normal(3)}
    (one,) = euler(scale_and_shift, 0.5, 1, parameters=start)
    x = normal(4, 3, seed=2)
    assert_close(one(x, one.start), x + 0.5 * scale_and_shift(x, start), 1e-14)
    modules = [TanhAffine(3), TanhAffine(3)]
    for module, one in zip(modules, euler(modules, 0.5), strict=True):
        assert_close(one(x, one.start), x + 0.5 * module(x).detach(), 1e-14)


def test_split_and_whole_steps_have_the_same_objective_and_gradient() -> None:
    whole, split = tanh_problem(cost=Quadratic(0.3)), split_problem(cost=Quadratic(0.3))
    values, gradients = [], []
    for problem in (whole, split):
        controls = [control.requires_grad_() for control in problem.initial_controls()]
        value = objective(problem, controls)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, [control for control in controls if control.numel()]))
    assert_close(values[1], values[0], 1e-13)
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        assert_close(found, expected, 1e-12)


def test_split_steps_start_at_zero() -> None:
    stages = split_euler(torch.tanh, 2, 0.5, 3, dtype=torch.float64)
    problem = ControlProblem(stages, SquaredError(), normal(3, 2), normal(3, 2))
    assert [one.size for one in stages] == [6, 0] * 3
    assert float(problem.running_cost(problem.initial_controls())) == 0.0
    assert all(not control.any() for control in problem.initial_controls())


@pytest.mark.parametrize("steps", [0, -1, None])
def test_the_number_of_steps_is_needed(steps: int | None) -> None:
    with pytest.raises(ProblemError, match=f"expected steps >= 1, found {steps}"):
        euler(TanhAffine(2), 0.1, steps)


def test_one_module_a_step() -> None:
    with pytest.raises(ProblemError, match="expected 3 modules, one a step, found 2"):
        euler([TanhAffine(2), TanhAffine(2)], 0.1, 3)


def test_the_running_cost_is_weighted_by_the_step() -> None:
    problem = tanh_problem(cost=Quadratic(0.3))
    total = sum(float(control.square().sum()) for control in problem.initial_controls())
    assert float(problem.running_cost(problem.initial_controls())) == pytest.approx(0.5 * 0.15 * total,
                                                                                    rel=1e-13)


def test_a_linear_layer_whose_weight_is_computed_is_not_taken_for_affine() -> None:
    """Pruning leaves the type Linear but another layout of the control."""
    plain, pruned = nn.Linear(3, 2, dtype=torch.float64), nn.Linear(3, 2, dtype=torch.float64)
    prune.random_unstructured(pruned, "weight", amount=2)
    assert stage(plain).affine is not None
    assert stage(pruned).affine is None


def test_a_linear_layer_with_a_hook_is_not_taken_for_affine() -> None:
    hooked = nn.Linear(3, 2, dtype=torch.float64)
    hooked.register_forward_hook(lambda module, inputs, output: output.tanh())
    assert stage(hooked).affine is None
