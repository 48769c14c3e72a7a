"""Where numbers stop being finite is named."""

import pytest
import torch
from torch import Tensor, nn

from builders import normal
from pontryagin.problem import ControlProblem, NonFiniteError, SquaredError, Stage, stage
from pontryagin.trajectory import propagate


def problem_of(*stages: Stage) -> ControlProblem:
    linear = stage(nn.Linear(2, 2, dtype=torch.float64))
    return ControlProblem([linear, *stages], SquaredError(), normal(3, 2), normal(3, 2, seed=1))


def same_start(problem: ControlProblem, value: float) -> tuple[Tensor, ...]:
    """Controls with which the linear stage maps every state to (value, value)."""
    return (torch.tensor([0, 0, 0, 0, value, value], dtype=torch.float64), *problem.initial_controls()[1:])


def test_the_first_non_finite_stage_is_named() -> None:
    problem = problem_of(stage(lambda x, _: x.exp(), name="grow"), stage(lambda x, _: x - x, name="cancel"))
    with pytest.raises(NonFiniteError, match=r"after stage 1 \(grow\).*larger rho"):
        propagate(problem, same_start(problem, 1e4))


def test_a_terminal_cost_that_overflows_is_named() -> None:
    problem = problem_of(stage(lambda x, _: 1.0 * x))
    with pytest.raises(NonFiniteError, match="terminal cost is NaN or infinite though all states are finite"):
        propagate(problem, same_start(problem, 1e200))


def test_a_derivative_that_does_not_exist_is_named() -> None:
    problem = problem_of(stage(lambda x, _: x.sqrt(), name="root"))
    with pytest.raises(NonFiniteError, match="costate at state 1 of 2"):
        propagate(problem, same_start(problem, 0.0))


def test_an_infinite_costate_is_seen_where_an_earlier_stage_hides_it() -> None:
    problem = problem_of(stage(lambda x, _: x.relu()), stage(lambda x, _: x.sqrt(), name="root"))
    with pytest.raises(NonFiniteError, match="costate at state 2 of 3"):
        propagate(problem, same_start(problem, -1.0))
