"""The closed form equals a dense argmax of the augmented Hamiltonian, found from its full Hessian."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from builders import STATE_ONLY, assert_close, groups_of, linear_problem, normal, split_problem, started
from pontryagin.hamiltonian import Penalties, augmented, measure
from pontryagin.maximizer import ClosedForm
from pontryagin.problem import (
    ControlProblem,
    NonFiniteError,
    ProblemError,
    Quadratic,
    RunningCost,
    SquaredError,
    stage,
)
from pontryagin.trajectory import StageGroup

BOTH = Penalties(1.7, 0.9, everywhere=True)


def dense_argmax(group: StageGroup, penalties: Penalties) -> Tensor:
    """theta - H^+ grad for each stage, H the p x p Hessian of H~ by automatic differentiation."""
    found = []
    for n, control in enumerate(group.control):
        data = tuple(tensor[n] for tensor in group.data)

        def value(theta: Tensor, data: tuple[Tensor, ...] = data) -> Tensor:
            return augmented(group.stage, theta, data, penalties)

        hessian, gradient = torch.func.hessian(value)(control), torch.func.grad(value)(control)
        found.append(control - torch.linalg.pinv(hessian, hermitian=True, rtol=1e-11) @ gradient)
    return torch.stack(found)


def values(group: StageGroup, controls: Tensor, penalties: Penalties) -> Tensor:
    return torch.stack([augmented(group.stage, control, tuple(tensor[n] for tensor in group.data), penalties)
                        for n, control in enumerate(controls)])


@pytest.mark.parametrize("penalties", [STATE_ONLY, BOTH], ids=["state", "both"])
@pytest.mark.parametrize("cost", [None, Quadratic(0.4)], ids=["free", "quadratic"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 3, 3)], ids=["vector", "time", "grid"])
def test_linear_stages(shape: tuple[int, ...], bias: bool, cost: RunningCost | None,
                       penalties: Penalties) -> None:
    (group,) = groups_of(linear_problem(shape, bias=bias, cost=cost))
    assert len(group.indices) == 3
    assert_close(ClosedForm(0.0).model(group).maximize(penalties), dense_argmax(group, penalties), 1e-9)


@pytest.mark.parametrize("penalties", [STATE_ONLY, BOTH], ids=["state", "both"])
@pytest.mark.parametrize("cost", [None, Quadratic(0.4)], ids=["free", "quadratic"])
def test_split_steps(cost: RunningCost | None, penalties: Penalties) -> None:
    (group,) = groups_of(split_problem(cost=cost))
    assert group.stage.step_size == 0.5
    assert_close(ClosedForm(0.0).model(group).maximize(penalties), dense_argmax(group, penalties), 1e-9)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("penalties", [Penalties(0.0, 0.0), Penalties(0.0, 0.8, everywhere=True)],
                         ids=["none", "costate"])
def test_a_quadratic_cost_needs_no_state_penalty(bias: bool, penalties: Penalties) -> None:
    (group,) = groups_of(linear_problem(bias=bias, cost=Quadratic(0.4)))
    assert_close(ClosedForm(0.0).model(group).maximize(penalties), dense_argmax(group, penalties), 1e-9)


CONVOLUTIONS = {
    "image": ((2, 4, 3), lambda: nn.Conv2d(2, 3, (3, 2), padding=(1, 0))),
    "stride": ((2, 5, 6), lambda: nn.Conv2d(2, 2, 3, stride=(2, 3), padding=1)),
    "dilation": ((1, 6, 5), lambda: nn.Conv2d(1, 2, 2, dilation=(2, 3), bias=False)),
    "point": ((3, 2, 2), lambda: nn.Conv2d(3, 2, 1)),
    "line": ((2, 6), lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1)),
}


def convolution(name: str, cost: RunningCost | None = None) -> ControlProblem:
    shape, make = CONVOLUTIONS[name]
    first = started(stage(make().double(), running_cost=cost), seed=3)
    second = started(stage(make().double(), running_cost=cost), seed=4)
    initial = normal(4, *shape, seed=1)
    back = first(initial, first.start)
    problem = ControlProblem([first], SquaredError(), initial, normal(*back.shape, seed=2))
    assert first.affine is not None
    assert first.matches(second)
    return problem


@pytest.mark.parametrize("penalties", [STATE_ONLY, BOTH, Penalties(0.3, 4.0, everywhere=True)],
                         ids=["state", "both", "costates"])
@pytest.mark.parametrize("cost", [None, Quadratic(0.4)], ids=["free", "quadratic"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, cost: RunningCost | None, penalties: Penalties) -> None:
    """The costate penalty with its coupling of neighbouring positions, against the dense Hessian of H~."""
    (group,) = groups_of(convolution(name, cost))
    found, expected = ClosedForm(0.0).model(group).maximize(penalties), dense_argmax(group, penalties)
    assert_close(values(group, found, penalties), values(group, expected, penalties), 1e-9)
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_measures_of_convolutions(name: str) -> None:
    (group,) = groups_of(convolution(name))
    new = group.control + normal(*group.control.shape, seed=9)
    for found, expected in zip(ClosedForm().model(group).measure(new), measure(group, new), strict=True):
        assert_close(found, expected, 1e-12)


def deficient(samples: int, bias: bool) -> ControlProblem:
    """Inputs on a line: rank 1 (after centring, where there is a bias)."""
    directions = normal(1, 3, seed=8)
    return linear_problem(bias=bias, initial=normal(samples, 1, seed=7) * directions
                          + (directions.flip(1) if bias else 0))


@pytest.mark.parametrize("penalties", [STATE_ONLY, BOTH], ids=["state", "both"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("samples", [1, 2, 9])
def test_rank_deficient_inputs_have_the_same_maximum(samples: int, bias: bool, penalties: Penalties) -> None:
    group = next(groups_of(deficient(samples, bias))[0].singles())
    found, expected = ClosedForm(0.0).model(group).maximize(penalties), dense_argmax(group, penalties)
    assert_close(values(group, found, penalties), values(group, expected, penalties), 1e-9)
    if not bias:  # with a bias, ours is of least norm in W alone, the dense one in (W, b)
        assert_close(found, expected, 1e-9)
    weight = group.stage.affine.matrices(found - group.control)[0][0]
    inputs = group.state[0] - (group.state[0].mean(0) if bias else 0)
    absent = torch.linalg.svd(inputs, full_matrices=True)[2][1:]  # directions in which no input varies
    assert float((weight @ absent.mT).abs().max()) <= 1e-9 * max(1.0, float(weight.abs().max()))


def test_inputs_that_are_all_zero_move_only_the_bias() -> None:
    group = next(groups_of(linear_problem(initial=torch.zeros(4, 3, dtype=torch.float64)))[0].singles())
    change = ClosedForm(0.0).model(group).maximize(BOTH) - group.control
    assert float(change[0, :9].abs().max()) < 1e-12
    assert_close(change[0, 9:], group.next_costate[0].mean(0) / BOTH.rho_state, 1e-12)


def test_the_start_does_not_matter() -> None:
    (group,) = groups_of(linear_problem())
    moved = replace(group, start=group.start + 5)
    assert torch.equal(ClosedForm().model(moved).maximize(BOTH), ClosedForm().model(group).maximize(BOTH))


def test_damping_shortens_the_step_in_proportion_to_the_mean_variance() -> None:
    """One output, no bias: dW = G (A + damping mean(diag A))^{-1} / rho."""
    problem = linear_problem(bias=False)
    group = next(groups_of(problem)[0].singles())
    x, u = group.state[0], group.next_costate[0]
    moment = x.mT @ x / len(x)
    moment = moment + 0.3 * moment.diagonal().mean() * torch.eye(3, dtype=x.dtype)
    expected = torch.linalg.solve(moment, (u.mT @ x / len(x)).mT).mT / STATE_ONLY.rho_state
    change = ClosedForm(0.3).model(group).maximize(STATE_ONLY) - group.control
    assert_close(change.view(3, 3), expected, 1e-10)


def test_solve_is_linear_and_its_gradient_gives_the_argmax() -> None:
    (group,) = groups_of(linear_problem(cost=Quadratic(0.4)))
    model = ClosedForm(1e-3).model(group)
    assert_close(group.control + model.solve(model.gradient, BOTH), model.maximize(BOTH), 1e-14)
    a, b = normal(*model.gradient.shape, seed=1), normal(*model.gradient.shape, seed=2)
    both = 2.0 * model.solve(a, BOTH) - 3.0 * model.solve(b, BOTH)
    assert_close(model.solve(2.0 * a - 3.0 * b, BOTH), both, 1e-10)


def test_no_maximum_without_curvature_is_refused() -> None:
    (group,) = groups_of(linear_problem())
    with pytest.raises(ProblemError, match=r"no maximum without a state penalty.*rho_state > 0"):
        ClosedForm().model(group).maximize(Penalties(0.0, 1.0))


def test_moments_that_overflow_are_refused() -> None:
    (group,) = groups_of(linear_problem())
    huge = replace(group, states=tuple(1e200 * state for state in group.states))
    with pytest.raises(NonFiniteError, match="moments of inputs or costates are NaN or infinite"):
        ClosedForm().model(huge).maximize(BOTH)
