"""The Hamiltonian, the feasibility errors and their sum, from their definitions."""

import pytest
import torch
from torch import Tensor

from builders import assert_close, groups_of, linear_problem, normal, split_problem, tanh_problem
from pontryagin.hamiltonian import (
    Penalties,
    augmented,
    costate,
    costate_error,
    hamiltonian,
    measure,
    state_error,
)
from pontryagin.problem import ControlProblem, ProblemError, Quadratic
from pontryagin.trajectory import StageGroup

PROBLEMS = {"tanh": lambda: tanh_problem(cost=Quadratic(0.4)),
            "split": lambda: split_problem(cost=Quadratic(0.4)),
            "time": lambda: linear_problem((4, 3), cost=Quadratic(0.4))}


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> ControlProblem:
    return PROBLEMS[request.param]()


def by_definition(group: StageGroup, n: int, control: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """H, |x_{n+1} - g|^2 and |p_n - grad_x H|^2 of each sample."""
    stage, (x, x_next, p, p_next) = group.stage, (tensor[n] for tensor in group.data)
    values, states, costates = [], [], []
    for i in range(len(x)):
        state = x[i:i + 1].clone().requires_grad_()
        image = stage(state, control)
        pulled = torch.autograd.grad((p_next[i] * image[0]).sum(), state)[0][0]
        values.append((p_next[i] * image[0]).sum() - stage.step_size * stage.running_cost(control))
        states.append((x_next[i] - image[0]).square().sum())
        costates.append((p[i] - pulled).square().sum())
    return torch.stack(values).detach(), torch.stack(states).detach(), torch.stack(costates)


def test_each_term_is_its_definition(problem: ControlProblem) -> None:
    for group in groups_of(problem):
        for n in range(len(group.indices)):
            control = normal(group.control.shape[1], seed=n, scale=0.7)
            x, x_next, p, p_next = (tensor[n] for tensor in group.data)
            value, state, change = by_definition(group, n, control)
            assert_close(hamiltonian(group.stage, control, x, p_next), value, 1e-12)
            assert_close(state_error(group.stage, control, x, x_next), state, 1e-12)
            assert_close(costate_error(group.stage, control, x, p, p_next), change, 1e-12)
            whole = augmented(group.stage, control, (x, x_next, p, p_next), Penalties(3.0, 0.5))
            assert_close(whole, (value - 1.5 * state - 0.25 * change).mean(), 1e-12)


def test_measure_is_the_gain_and_the_mean_errors(problem: ControlProblem) -> None:
    for group in groups_of(problem):
        new = group.control + normal(*group.control.shape, seed=3, scale=0.3)
        found = measure(group, new)
        for n in range(len(group.indices)):
            after, before = by_definition(group, n, new[n]), by_definition(group, n, group.control[n])
            assert_close(found.gain[n], (after[0] - before[0]).mean(), 1e-10)
            assert_close(found.state_error[n], after[1].mean(), 1e-12)
            assert_close(found.costate_error[n], after[2].mean(), 1e-12)


def test_nothing_is_measured_at_the_old_controls(problem: ControlProblem) -> None:
    for group in groups_of(problem):
        for value in measure(group, group.control):
            assert float(value.abs().max()) < 1e-12


def test_costate_is_one_step_of_the_costate_pass(problem: ControlProblem) -> None:
    for group in groups_of(problem):
        for n in range(len(group.indices)):
            pulled = costate(group.stage, group.control[n], group.state[n], group.next_costate[n])
            assert_close(pulled, group.costate[n], 1e-12)


@pytest.mark.parametrize(("state", "costate"),
                         [(-1.0, 0.0), (0.0, -1e-9), (float("inf"), 0.0), (1.0, float("nan"))])
def test_penalties_are_finite_and_not_negative(state: float, costate: float) -> None:
    with pytest.raises(ProblemError,
                       match=r"rho_(co)?state: expected a finite penalty >= 0, found (-1|inf|nan)"):
        Penalties(state, costate)
