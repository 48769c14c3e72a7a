"""Checkpointed propagation: the same numbers, and states alive that grow as the square root of the stages."""

import gc
import weakref
from math import log10

import pytest
import torch
from torch import Tensor

from builders import assert_close, mixed_problem, normal, objective, tanh_problem
from pontryagin.problem import ControlProblem, NonFiniteError, ProblemError, Quadratic, SquaredError, stage
from pontryagin.trajectory import checkpointed, propagate


@pytest.mark.parametrize("length", [None, 1, 3, 100])
@pytest.mark.parametrize("problem", [
    tanh_problem(steps=7, cost=Quadratic(0.3)), mixed_problem(("conv", "bend"), ("linear", "tanh"), seed=2)],
    ids=["tanh", "mixed"])
def test_same_as_plain(problem: ControlProblem, length: int | None) -> None:
    controls = problem.initial_controls()
    plain = propagate(problem, controls)
    leaves = [control.clone().requires_grad_() for control in controls]
    slopes = torch.autograd.grad(objective(problem, leaves), leaves, allow_unused=True,
                                 materialize_grads=True)
    seen = []
    for segment in checkpointed(problem, controls, length):
        numbers = range(segment.first, segment.first + len(segment.gradients))
        seen = [*numbers, *seen]
        for n, gradient in zip(numbers, segment.gradients, strict=True):
            assert_close(gradient, slopes[n], 1e-12)
        for k, (x, p) in enumerate(zip(segment.states, segment.costates, strict=True)):
            assert_close(x, plain.states[segment.first + k], 1e-13)
            assert_close(p, plain.costates[segment.first + k], 1e-13)
        assert_close(segment.terminal, plain.terminal, 1e-13)
    assert seen == list(range(len(problem.stages)))


class Alive:
    """A step that counts the states it made that are still alive."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __call__(self, x: Tensor, theta: dict[str, Tensor]) -> Tensor:
        result = x + 0.01 * torch.sin(x + theta["shift"])
        self.now += 1
        self.most = max(self.most, self.now)
        weakref.finalize(result.untyped_storage(), self._gone)
        return result

    def _gone(self) -> None:
        self.now -= 1


def most_alive(steps: int) -> int:
    alive = Alive()
    problem = ControlProblem([stage(alive, {"shift": torch.zeros(1).double()})] * steps, SquaredError(),
                             normal(2, 3), normal(2, 3))
    gc.collect()
    alive.most = alive.now
    for segment in checkpointed(problem, problem.initial_controls()):
        del segment
    return alive.most


def test_states_alive_grow_as_the_square_root() -> None:
    few, many = most_alive(64), most_alive(1024)
    assert log10(many / few) / log10(16) < 0.55


def test_wrong_requests_and_numbers() -> None:
    problem = tanh_problem()
    with pytest.raises(ProblemError, match="at least one stage"):
        checkpointed(problem, problem.initial_controls(), 0)
    with pytest.raises(ProblemError, match="outside"):
        checkpointed(problem, tuple(control + torch.inf for control in problem.initial_controls()))
    large = {"a": torch.tensor(1e200, dtype=torch.float64)}
    steep = ControlProblem([stage(lambda x, theta: x * theta["a"], large)] * 2, SquaredError(), normal(2, 3),
                           normal(2, 3))
    with pytest.raises(NonFiniteError, match="terminal cost"):
        next(checkpointed(steep, steep.initial_controls()))
