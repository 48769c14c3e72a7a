"""L-BFGS finds the maximum that scipy finds, stage by stage, and leaves a stage at its maximum alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from builders import BOTH, assert_close, groups_of, linear_problem, normal, tanh_problem
from pontryagin.hamiltonian import Penalties, augmented
from pontryagin.maximizer import LBFGS, ClosedForm
from pontryagin.problem import ControlProblem, Quadratic, stage
from pontryagin.trajectory import StageGroup


def scipy_argmax(group: StageGroup, n: int, penalties: Penalties) -> Tensor:
    data = tuple(tensor[n] for tensor in group.data)
    value = torch.func.grad_and_value(lambda theta: -augmented(group.stage, theta, data, penalties))

    def both(theta: np.ndarray) -> tuple[float, np.ndarray]:
        gradient, found = value(torch.from_numpy(theta))
        return float(found), gradient.numpy()

    result = minimize(both, group.start[n].numpy(), jac=True, method="BFGS",
                      options={"gtol": 1e-11, "maxiter": 1000})
    return torch.from_numpy(result.x)


@pytest.mark.parametrize("penalties", [BOTH, Penalties(20.0, 0.0)], ids=["both", "state"])
def test_converges_to_the_maximum_that_scipy_finds(penalties: Penalties) -> None:
    (group,) = groups_of(tanh_problem(samples=20, cost=Quadratic(0.1)))
    found = LBFGS(60).model(group).maximize(penalties)
    for n, control in enumerate(found):
        assert_close(control, scipy_argmax(group, n, penalties), 1e-6)


def test_converges_to_the_closed_form_on_an_affine_stage() -> None:
    (group,) = groups_of(linear_problem(samples=30, cost=Quadratic(0.4)))
    exact = ClosedForm(0.0).model(group).maximize(BOTH)
    assert_close(LBFGS(60).model(group).maximize(BOTH), exact, 1e-7)


def test_more_iterations_are_not_worse() -> None:
    (group,) = groups_of(tanh_problem())
    before = None
    for iterations in (1, 2, 4, 8, 16):
        found = LBFGS(iterations).model(group).maximize(BOTH)
        now = torch.stack([augmented(group.stage, control, tuple(tensor[n] for tensor in group.data), BOTH)
                           for n, control in enumerate(found)])
        assert before is None or (now >= before).all()
        before = now


def test_a_stage_at_its_maximum_stays_while_the_others_move() -> None:
    (group,) = groups_of(tanh_problem(cost=Quadratic(0.1)))
    quiet = [torch.zeros_like(costate) if n == 1 else costate for n,
             costate in enumerate(group.next_costates)]
    still = [torch.zeros_like(costate) if n == 1 else costate for n, costate in enumerate(group.costates)]
    control = group.control.clone()
    control[1] = 0.0  # with costate 0 only the running cost is left, and 0 is its minimum
    nothing = group.stage(group.states[1], control[1])
    images = tuple(nothing if n == 1 else state for n, state in enumerate(group.next_states))
    at_rest = replace(group, control=control, start=control, next_costates=tuple(quiet),
                      costates=tuple(still), next_states=images)
    found = LBFGS(10).model(at_rest).maximize(BOTH)
    assert torch.equal(found[1], control[1])
    for n in (0, 2):
        assert_close(found[n], LBFGS(10).model(group).maximize(BOTH)[n], 1e-9)
        assert float((found[n] - control[n]).abs().max()) > 1e-3


def cost_alone(cost: Callable[[Tensor], Tensor], starts: list[Tensor]) -> StageGroup:
    """Equal stages whose costates vanish, so that H~ = -cost of the control."""
    stages = [stage(shift, {"u": start}, running_cost=cost) for start in starts]
    states = torch.zeros(2, len(starts[0]), dtype=torch.float64)
    (group,) = groups_of(ControlProblem(stages, nothing, states, states))
    return group


def shift(x: Tensor, theta: dict[str, Tensor]) -> Tensor:
    return x + theta["u"]


def nothing(x: Tensor, target: Tensor) -> Tensor:
    return 0.0 * x.sum(1)


def bowl_or_nan(u: Tensor) -> Tensor:
    """|u - 1|^2 where u_0 > -10, NaN elsewhere."""
    return (u - 1).square().sum(-1) + 0.0 * (u[..., 0] + 10).log()


def walled(u: Tensor) -> Tensor:
    """Finite for u > 0 only, least at 0.02; steepest descent from 0.9 would leave that half line."""
    return (50 * u - u.log()).sum(-1)


def test_a_value_that_is_not_finite_masks_its_stage_only() -> None:
    starts = [normal(4), torch.full((4,), -20.0, dtype=torch.float64), normal(4, seed=1)]
    group = cost_alone(bowl_or_nan, starts)
    found = LBFGS(30).model(group).maximize(Penalties(0.0, 0.0))
    assert torch.equal(found[1], starts[1])
    assert_close(found[[0, 2]], torch.ones(2, 4).double(), 1e-7)


def test_a_wall_of_infinite_values_is_not_crossed() -> None:
    starts = [torch.tensor([start], dtype=torch.float64) for start in (0.9, 0.02, 1e-3)]
    found = LBFGS(60).model(cost_alone(walled, starts)).maximize(Penalties(0.0, 0.0))
    assert_close(found, torch.full((3, 1), 0.02, dtype=torch.float64), 1e-6)


def uphill(u: Tensor) -> Tensor:
    """u, with the gradient of -u: no step along the gradient lowers it."""
    return (2 * u.detach() - u).sum(-1)


def test_a_stage_whose_search_fails_is_given_up() -> None:
    model = LBFGS(iterations=9, searches=5).model(cost_alone(uphill, [normal(2), normal(2, seed=1)]))
    assert torch.equal(model.maximize(Penalties(0.0, 0.0)), model.group.start)
    assert model.evaluations == 1 + 5
