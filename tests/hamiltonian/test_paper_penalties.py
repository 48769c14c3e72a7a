"""The paper's convention: costates of the batch-mean loss, H and penalties summed over the batch."""

import pytest
import torch
from torch import Tensor

from builders import assert_close, groups_of, linear_problem, normal, tanh_problem
from pontryagin.hamiltonian import augmented, paper_penalties
from pontryagin.problem import ControlProblem, ProblemError, SquaredError, stage
from pontryagin.trajectory import StageGroup

RHO = 0.37


def paper_costates(problem: ControlProblem) -> list[Tensor]:
    """Minus the derivative of the batch-mean loss in every state."""
    state, states = problem.initial_state.clone().requires_grad_(), []
    for one in problem.stages:
        states.append(state)
        state = one(state, one.start)
    states.append(state)
    gradients = torch.autograd.grad(problem.terminal_cost(state, problem.target).mean(), states)
    return [-gradient for gradient in gradients]


def paper_augmented(problem: ControlProblem, costates: list[Tensor], group: StageGroup, n: int,
                    control: Tensor) -> Tensor:
    """sum_i H(x^i, p^i) - rho/2 |x_{n+1}^i - g|^2 - rho/2 |p_n^i - grad_x H|^2, the running cost counted
    once."""
    index = group.indices[n]
    x = group.state[n].clone().requires_grad_()
    image = group.stage(x, control)
    value = (costates[index + 1] * image).sum()
    pulled = torch.autograd.grad(value, x, create_graph=True)[0]
    errors = (group.next_state[n] - image).square().sum() + (costates[index] - pulled).square().sum()
    return value - 0.5 * RHO * errors - group.stage.cost(control)


@pytest.mark.parametrize("problem", [tanh_problem(), linear_problem(samples=11)], ids=["tanh", "linear"])
def test_the_same_function_of_the_control(problem: ControlProblem) -> None:
    costates, penalties = paper_costates(problem), paper_penalties(RHO, problem.samples)
    for group in groups_of(problem):
        for n in range(len(group.indices)):
            data = tuple(tensor[n] for tensor in group.data)
            for seed in range(4):
                control = normal(group.control.shape[1], seed=seed)
                expected = paper_augmented(problem, costates, group, n, control).detach()
                assert_close(augmented(group.stage, control, data, penalties), expected, 1e-12)


def test_the_penalties_scale_with_the_batch() -> None:
    assert paper_penalties(0.5, 8).rho_state == 4.0
    assert paper_penalties(0.5, 8).rho_costate == 0.0625
    with pytest.raises(ProblemError, match="expected at least one sample, found 0"):
        paper_penalties(0.5, 0)


def test_a_batch_repeated_twice_has_the_same_augmented_hamiltonian_at_the_same_penalties() -> None:
    linear = stage(torch.nn.Linear(3, 3, dtype=torch.float64))
    x, y, control = normal(5, 3), normal(5, 3, seed=1), normal(12, seed=2)
    values = []
    for times in (1, 2):
        problem = ControlProblem([linear], SquaredError(), x.repeat(times, 1), y.repeat(times, 1))
        (group,) = groups_of(problem)
        data = tuple(tensor[0] for tensor in group.data)
        values.append(augmented(linear, control, data, paper_penalties(RHO, 5)))
    assert_close(values[0], values[1], 1e-13)
