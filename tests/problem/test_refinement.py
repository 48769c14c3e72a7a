"""Halved steps with prolonged controls: the same problem but for the discretization."""

from dataclasses import replace

import pytest
import torch

from builders import assert_close, normal, objective, split_problem, tanh_problem
from pontryagin.continuous import RK4, ContinuousProblem, Discretization, PiecewiseConstant, PiecewiseLinear
from pontryagin.problem import Box, ControlProblem, ProblemError, Quadratic, refine, split_euler


def test_a_step_becomes_two_of_half_its_size() -> None:
    problem = tanh_problem(steps=3, cost=Quadratic(0.3))
    finer, controls = refine(problem, problem.initial_controls(), [1])
    assert [stage.step_size for stage in finer.stages] == [0.5, 0.25, 0.25, 0.5]
    layer = problem.stages[0].dynamics.dynamics
    x = problem.initial_state
    for stage, control, delta in zip(finer.stages, controls, (0.5, 0.25, 0.25, 0.5), strict=True):
        x = x + delta * layer(x, stage.parameters(control))
    expected = (x - problem.target).square().sum(1).mean() + finer.running_cost(controls)
    assert_close(objective(finer, controls), expected, 1e-14)
    assert_close(finer.running_cost(controls), problem.running_cost(problem.initial_controls()), 1e-14)


@pytest.mark.parametrize("make", [tanh_problem, split_problem])
def test_refined_again_and_again_it_converges(make) -> None:
    """The differences of J halve, as Euler's method has it."""
    problem: ControlProblem = make(steps=2)
    controls, values = problem.initial_controls(), []
    for _ in range(8):
        values.append(float(objective(problem, controls)))
        problem, controls = refine(problem, controls)
    changes = torch.tensor(values).diff()[-4:]
    assert_close(changes[1:] / changes[:-1], torch.full((3,), 0.5), 0.1)


def test_second_halves_are_fitted_to_the_states() -> None:
    """W' and b' by centred least squares with a ridge, step after step, written out."""
    problem = split_problem(steps=3, samples=40)
    old = problem.initial_controls()
    finer, new = refine(problem, old, [0, 2], keep="states")
    x = y = problem.initial_state

    def half(state: torch.Tensor, theta: torch.Tensor, delta: float) -> torch.Tensor:
        return state + delta * torch.tanh(state @ theta[:9].view(3, 3).mT + theta[9:])

    place = 0
    for step in range(3):
        theta = old[2 * step]
        if step == 1:
            assert torch.equal(new[place], theta)
            x, y, place = half(x, theta, 0.5), half(y, theta, 0.5), place + 2
            continue
        assert torch.equal(new[place], theta)
        y = half(y, theta, 0.25)
        left = (x - y) @ theta[:9].view(3, 3).mT
        centred = y - y.mean(0)
        moment = centred.mT @ centred / 40
        moment = moment + 1e-4 * moment.diagonal().mean() * torch.eye(3, dtype=y.dtype)
        change = torch.linalg.solve(moment, centred.mT @ (left - left.mean(0)) / 40).mT
        fitted = torch.cat([theta[:9] + change.flatten(), theta[9:] + left.mean(0) - change @ y.mean(0)])
        assert_close(new[place + 2], fitted, 1e-10)
        x, y, place = half(x, theta, 0.5), half(y, fitted, 0.25), place + 4
    assert place == len(new) == len(finer.stages)
    copied = refine(problem, old, [0, 2])
    before = objective(problem, old)
    assert abs(objective(finer, new) - before) < 0.5 * abs(objective(*copied) - before)


def test_states_are_kept_where_an_affine_map_can_and_controls_where_not() -> None:
    """A step of euler, or one with an admissible set, has its own control in both halves."""
    boxed = replace(split_problem(steps=2), stages=split_euler(torch.tanh, 3, 0.5, 2, admissible=Box(-9, 9),
                                                               dtype=torch.float64))
    for problem in (tanh_problem(steps=2), boxed):
        both = [refine(problem, problem.initial_controls(), keep=keep)[1] for keep in ("controls", "states")]
        assert all(torch.equal(one, other) for one, other in zip(*both, strict=True))
    still = split_problem(steps=2)
    still = replace(still, initial_state=torch.zeros_like(still.initial_state))  # constant states
    _, controls = refine(still, still.initial_controls(), keep="states")
    assert max(float(control.abs().max()) for control in controls if control.numel()) < 10


def test_all_steps_of_equal_size_stay_one_group() -> None:
    problem = split_problem(steps=3)
    finer, _ = refine(problem, problem.initial_controls())
    assert [len(group) for group in finer.groups] == [6]


@pytest.mark.parametrize("where", [[3], [-1], [True, False, True], []])
def test_other_steps_are_refused(where: list[int]) -> None:
    problem = tanh_problem(steps=3)
    if where:
        with pytest.raises(ProblemError, match="among the 3"):
            refine(problem, problem.initial_controls(), where)
    else:
        assert len(refine(problem, problem.initial_controls(), where)[0].stages) == 3


@pytest.mark.parametrize("control", [PiecewiseConstant(), PiecewiseLinear(),
                                     PiecewiseConstant(per_sample=True)], ids=str)
def test_a_refined_mesh_has_the_same_control(control: PiecewiseConstant | PiecewiseLinear) -> None:
    one = ContinuousProblem(lambda t, x, u: u - x * t.unsqueeze(1), normal(2, 1), 1, 1.0,
                            lambda t, x, u: u[:, 0].square() + x[:, 0].square())
    on = Discretization(one, torch.tensor([0.0, 0.2, 0.3, 0.7, 1.0]).double(), RK4(), 20, control)
    values = normal(*on.shape, seed=1)
    finer, prolonged = on.refined(values, torch.tensor([True, False, True, False]))
    assert_close(finer.mesh, torch.tensor([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]).double(), 1e-15)
    assert tuple(prolonged.shape) == finer.shape
    before, after = (objective(each.control_problem(), each.controls(theta))
                     for each, theta in ((on, values), (finer, prolonged)))
    assert_close(after, before, 1e-8)
    with pytest.raises(ProblemError, match="mask of 4 intervals"):
        on.refined(values, torch.tensor([True]))
