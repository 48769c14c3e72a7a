"""The costate pass equals automatic differentiation and the recursion p_n = grad_x H_n."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from builders import IMAGE_KINDS, VECTOR_KINDS, assert_all_close, assert_close, mixed_problem, objective
from pontryagin.problem import ControlProblem
from pontryagin.trajectory import propagate, terminal_costs

kinds = {"image": st.lists(st.sampled_from(IMAGE_KINDS), max_size=2),
         "vector": st.lists(st.sampled_from(VECTOR_KINDS), max_size=3), "seed": st.integers(0, 10**4)}


def states_by_hand(problem: ControlProblem) -> list[Tensor]:
    states = [problem.initial_state]
    for one in problem.stages:
        states.append(one(states[-1], one.start))
    return states


def slow_costates(problem: ControlProblem, states: list[Tensor]) -> list[Tensor]:
    """p_N^i = -grad Phi_i and p_n^i = grad_x (p_{n+1}^i . g_n(x_n^i)), one sample and one stage at a time."""
    rows = []
    for i in range(problem.samples):
        here = slice(i, i + 1)
        final = states[-1][here].detach().requires_grad_()
        costate = -torch.autograd.grad(problem.terminal_cost(final, problem.target[here]).sum(), final)[0]
        row = [costate]
        for one, state in zip(reversed(problem.stages), reversed(states[:-1]), strict=True):
            x = state[here].detach().requires_grad_()
            costate = torch.autograd.grad((costate * one(x, one.start)).sum(), x)[0]
            row.insert(0, costate)
        rows.append(row)
    return [torch.cat(column) for column in zip(*rows, strict=True)]


@given(**kinds)
def test_states_and_costates_equal_the_slow_recursion(image: list[str], vector: list[str], seed: int) -> None:
    problem = mixed_problem(image, vector, seed)
    states = states_by_hand(problem)
    trajectory = propagate(problem, problem.initial_controls())
    assert_all_close(trajectory.states, states, 1e-12)
    assert_all_close(trajectory.costates, slow_costates(problem, states), 1e-12)


@given(**kinds)
def test_costates_are_minus_the_sample_count_times_the_derivative_of_the_objective(
        image: list[str], vector: list[str], seed: int) -> None:
    problem = mixed_problem(image, vector, seed)
    costates = propagate(problem, problem.initial_controls()).costates
    for n in range(len(problem.stages) + 1):
        tail = problem.stages[n:]
        state = states_by_hand(problem)[n].detach().requires_grad_()
        final = state
        for one in tail:
            final = one(final, one.start)
        loss = problem.terminal_cost(final, problem.target).mean()
        assert_close(costates[n], -problem.samples * torch.autograd.grad(loss, state)[0], 1e-12)


@given(**kinds)
def test_terminal_costs_are_those_of_the_trajectory(image: list[str], vector: list[str], seed: int) -> None:
    problem = mixed_problem(image, vector, seed)
    controls = problem.initial_controls()
    costs = terminal_costs(problem, controls)
    assert_close(propagate(problem, controls).terminal, costs, 1e-14)
    total = costs.mean() + problem.running_cost(controls)
    assert_close(total, objective(problem, controls), 1e-12)


def test_a_stage_that_forgets_its_state_has_costate_zero() -> None:
    from pontryagin.problem import SquaredError, stage

    forget = stage(lambda x, theta: theta["u"].expand(x.shape[0], -1),
                   {"u": torch.ones(2, dtype=torch.float64)})
    problem = ControlProblem([forget], SquaredError(), torch.ones(3, 2).double(), torch.zeros(3, 2).double())
    first, last = propagate(problem, problem.initial_controls()).costates
    assert torch.equal(first, torch.zeros(3, 2).double())
    assert torch.equal(last, torch.full((3, 2), -2.0).double())


def test_a_cost_that_no_state_changes_has_costates_zero() -> None:
    from pontryagin.problem import stage
    from pontryagin.trajectory import checkpointed

    step = stage(torch.nn.Linear(2, 2, dtype=torch.float64))
    problem = ControlProblem([step], lambda x, y: x.new_ones(len(x)), torch.ones(3, 2).double(),
                             torch.zeros(3, 2).double())
    segment, = checkpointed(problem, problem.initial_controls())
    for costates in (propagate(problem, problem.initial_controls()).costates, segment.costates):
        assert not any(each.any() for each in costates)
    assert not segment.gradients[0].any()
