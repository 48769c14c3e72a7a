"""GaussNewton equals its dense formula; RowGaussNewton equals it where rows are independent."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from builders import BOTH, STATE_ONLY, assert_close, groups_of, linear_problem, normal, tanh_problem
from pontryagin.hamiltonian import Penalties, augmented
from pontryagin.maximizer import ClosedForm, GaussNewton, Maximizer, RowGaussNewton
from pontryagin.problem import ControlProblem, ProblemError, Quadratic, SquaredError, Stage, stage
from pontryagin.trajectory import StageGroup

STEEP = Penalties(200.0, 20.0, everywhere=True)  # steps so short that none is halved


def dense_step(group: StageGroup, n: int, penalties: Penalties, damping: float, weight: float) -> Tensor:
    """(rho M + rho' N + damping mean diag + lambda)^{-1} grad H, sample by sample with reverse-mode
    Jacobians."""
    stage, control = group.stage, group.control[n]
    size = control.numel()
    state_curvature, costate_curvature = torch.zeros(size, size).double(), torch.zeros(size, size).double()
    gradient = -group.stage.step_size * weight * control
    for x, p_next in zip(group.state[n], group.next_costate[n], strict=True):
        def image(theta: Tensor, x: Tensor = x) -> Tensor:
            return stage(x[None], theta)[0]

        def pulled(theta: Tensor, x: Tensor = x, p: Tensor = p_next) -> Tensor:
            return torch.func.grad(lambda y: (p * stage(y[None], theta)[0]).sum())(x)

        jacobian, costates = torch.func.jacrev(image)(control), torch.func.jacrev(pulled)(control)
        state_curvature += jacobian.mT @ jacobian / len(group.state[n])
        costate_curvature += costates.mT @ costates / len(group.state[n])
        gradient = gradient + jacobian.mT @ p_next / len(group.state[n])
    system = penalties.rho_state * state_curvature + penalties.rho_costate * costate_curvature
    shift = damping * system.diagonal().mean() + group.stage.step_size * weight
    return torch.linalg.solve(system + shift * torch.eye(size, dtype=system.dtype), gradient)


@pytest.mark.parametrize("penalties", [STEEP, Penalties(200.0, 0.0)], ids=["both", "state"])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_dense_formula(weight: float, penalties: Penalties) -> None:
    (group,) = groups_of(tanh_problem(steps=2, cost=Quadratic(weight)))
    found = GaussNewton(1e-2).model(group).maximize(penalties) - group.control
    expected = torch.stack([dense_step(group, n, penalties, 1e-2, weight) for n in range(2)])
    assert_close(found, expected, 1e-9)


def test_on_an_affine_stage_it_is_the_argmax() -> None:
    (group,) = groups_of(linear_problem(samples=30, cost=Quadratic(0.4)))
    exact = ClosedForm(0.0).model(group).maximize(BOTH)
    assert_close(GaussNewton(1e-13).model(group).maximize(BOTH), exact, 1e-9)


def test_rows_of_the_residual_tanh_are_independent() -> None:
    (group,) = groups_of(tanh_problem(samples=30))
    penalties = Penalties(200.0, 0.0)
    assert_close(RowGaussNewton(1e-13).model(group).maximize(penalties),
                 GaussNewton(1e-13).model(group).maximize(penalties), 1e-8)


def single(one: Stage, initial: Tensor) -> StageGroup:
    problem = ControlProblem([one], SquaredError(), initial, normal(*one(initial, one.start).shape, seed=4))
    return groups_of(problem)[0]


def hill(x: Tensor, theta: dict[str, Tensor]) -> Tensor:
    """-(W x + b)^2: too long a step overshoots the hill's top."""
    return -(x @ theta["weight"].mT + theta["bias"]).square()


@pytest.mark.parametrize("maximizer", [GaussNewton(1e-3), RowGaussNewton(1e-3)], ids=str)
def test_a_step_too_long_for_the_model_is_halved(maximizer: Maximizer) -> None:
    start = {"weight": normal(2, 2, seed=1), "bias": normal(2, seed=2)}
    initial = normal(6, 2)
    group = groups_of(ControlProblem([stage(hill, start)], SquaredError(), initial,
                                     torch.full((6, 2), 5.0).double()))[0]
    weak, data = Penalties(1e-2, 0.0), tuple(tensor[0] for tensor in group.data)
    model = maximizer.model(group)
    whole, change = model.solve(model.gradient, weak)[0], model.maximize(weak)[0] - group.start[0]
    ratio = float(change @ whole / (whole @ whole))
    assert_close(change, ratio * whole, 1e-12)
    assert 0 < ratio < 1
    assert_close(torch.tensor(ratio).log2(), torch.tensor(ratio).log2().round(), 1e-6)
    before, halved, twice = (augmented(group.stage, group.start[0] + t * change, data, weak)
                             for t in (0, 1, 2))
    assert twice < before <= halved


def softmax_of_affine(x: Tensor, theta: dict[str, Tensor]) -> Tensor:
    return (x @ theta["weight"].mT + theta["bias"]).softmax(-1)


@pytest.mark.parametrize("first", [0.0, 1.0], ids=["first input is zero", "all inputs vary"])
def test_coupled_rows_are_refused(first: float) -> None:
    start = {"weight": normal(3, 2, seed=1), "bias": normal(3, seed=2)}
    initial = normal(5, 2) * torch.tensor([first, 1.0], dtype=torch.float64)
    group = single(stage(softmax_of_affine, start), initial)
    with pytest.raises(ProblemError, match="softmax_of_affine are coupled: use GaussNewton"):
        RowGaussNewton().model(group)
    assert torch.isfinite(GaussNewton().model(group).maximize(STATE_ONLY)).all()


def test_a_control_that_is_no_weight_and_bias_is_refused() -> None:
    group = single(stage(lambda x, theta: x * theta["scale"], {"scale": normal(3)}), normal(5, 3))
    with pytest.raises(ProblemError, match=r"weight \(output, input\), bias \(output,\).*use GaussNewton"):
        RowGaussNewton().model(group)


@pytest.mark.parametrize("maximizer", [GaussNewton(), RowGaussNewton()], ids=str)
def test_a_linear_model_has_no_maximum(maximizer: Maximizer) -> None:
    (group,) = groups_of(tanh_problem())
    with pytest.raises(ProblemError, match="GaussNewton needs a penalty or a quadratic running cost"):
        maximizer.model(group).maximize(Penalties(0.0, 0.0))


def test_it_starts_from_the_perturbed_start() -> None:
    (group,) = groups_of(tanh_problem())
    moved = replace(group, start=group.start + 0.1)
    first, second = (GaussNewton().model(one).maximize(STEEP) for one in (group, moved))
    assert float((first - second).abs().max()) > 1e-3
