"""Equal stages are recognised, and stages that differ in anything but their controls are kept apart."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from builders import TanhAffine, bend, linear_problem, normal, scale_and_shift, split_problem, tanh_problem
from pontryagin.problem import ControlProblem, Quadratic, SquaredError, Stage, euler, stage

F64 = torch.float64


class Act(nn.Module):
    """An activation of an affine map, the activation kept under any name."""

    def __init__(self, activation: Callable[[Tensor], Tensor], name: str = "activation") -> None:
        super().__init__()
        self.linear, self.name = nn.Linear(3, 3, dtype=F64), name
        setattr(self, name, activation)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.name)(self.linear(x))


class Shifted(nn.Module):
    """W x + a buffer."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3, dtype=F64)
        self.register_buffer("shift", torch.tensor(shift, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.shift


def groups(*stages: Stage) -> tuple[tuple[int, ...], ...]:
    initial = normal(2, 3)
    state = initial
    for one in stages:
        state = one(state, one.start)
    return ControlProblem(stages, SquaredError(), initial, torch.zeros_like(state)).groups


def hooked(hook: Callable[..., Tensor]) -> nn.Module:
    module = nn.LayerNorm(3, dtype=F64)
    module.register_forward_hook(hook)
    return module


def double(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return 2 * output


def norm(**settings: float) -> nn.Module:
    return nn.LayerNorm(3, dtype=F64, **settings)


EQUAL = {
    "linear": lambda: nn.Linear(3, 3, dtype=F64), "norm": norm, "activation": lambda: Act(torch.tanh),
    "hidden activation": lambda: Act(torch.tanh, "_activation"), "buffer": lambda: Shifted(1.0),
    "nested": lambda: nn.Sequential(nn.Linear(3, 2, dtype=F64), nn.Tanh(), nn.Linear(2, 3, dtype=F64)),
}
DIFFERENT = {
    "setting": (lambda: norm(), lambda: norm(eps=1e-2)),
    "activation": (lambda: Act(torch.tanh), lambda: Act(torch.relu)),
    "hidden activation": (lambda: Act(torch.tanh, "_activation"), lambda: Act(torch.relu, "_activation")),
    "buffer": (lambda: Shifted(1.0), lambda: Shifted(2.0)),
    "bias": (lambda: nn.Linear(3, 3, dtype=F64), lambda: nn.Linear(3, 3, bias=False, dtype=F64)),
    "child": (lambda: nn.Sequential(nn.Linear(3, 3, dtype=F64), nn.Tanh()),
              lambda: nn.Sequential(nn.Linear(3, 3, dtype=F64), nn.ReLU())),
    "order": (lambda: nn.Sequential(nn.Linear(3, 3, dtype=F64), nn.Tanh()),
              lambda: nn.Sequential(nn.Tanh(), nn.Linear(3, 3, dtype=F64))),
    "type": (lambda: nn.Linear(3, 3, dtype=F64), lambda: TanhAffine(3)),
    "hook": (norm, lambda: hooked(double)),
}


@pytest.mark.parametrize("make", EQUAL.values(), ids=EQUAL)
def test_equal_modules_are_one_group(make: Callable[[], nn.Module]) -> None:
    assert groups(stage(make()), stage(bend), stage(make())) == ((0, 2),)


@pytest.mark.parametrize(("first", "second"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_modules_are_not(first: Callable[[], nn.Module], second: Callable[[], nn.Module]) -> None:
    assert groups(stage(first()), stage(second()), stage(first())) == ((0, 2), (1,))


def test_costs_and_steps_keep_equal_modules_apart() -> None:
    linear = nn.Linear(3, 3, dtype=F64)
    stages = [stage(linear), stage(linear, running_cost=Quadratic(0.1)), stage(linear, step_size=0.5),
              stage(linear, running_cost=Quadratic(0.1)), stage(linear, running_cost=Quadratic(0.2))]
    assert groups(*stages) == ((0,), (1, 3), (2,), (4,))


def test_euler_steps_of_different_lengths_are_kept_apart() -> None:
    module = TanhAffine(3)
    assert groups(*euler(module, 0.5, 2), *euler(module, 0.25, 2)) == ((0, 1), (2, 3))


def test_equal_modules_at_states_of_different_shapes_are_kept_apart() -> None:
    def columns(x: Tensor, theta: object) -> Tensor:
        return torch.stack([x, 2 * x], 1)

    linear = nn.Linear(3, 3, dtype=F64)
    assert groups(stage(linear), stage(columns), stage(linear), stage(linear)) == ((0,), (2, 3))


def test_functions_are_equal_when_they_are_the_same_function() -> None:
    start = {"scale": torch.tensor(1.0, dtype=F64), "shift": torch.zeros(3, dtype=F64)}
    twin = {"scale": torch.tensor(3.0, dtype=F64), "shift": torch.ones(3, dtype=F64)}
    other = stage(lambda x, theta: scale_and_shift(x, theta), start)
    assert groups(stage(scale_and_shift, start), other, stage(scale_and_shift, twin)) == ((0, 2), (1,))


def test_the_usual_problems() -> None:
    assert tanh_problem(steps=4).groups == ((0, 1, 2, 3),)
    assert split_problem(steps=3).groups == ((0, 2, 4),)
    assert linear_problem().groups == ((0, 2, 4),)


def test_other_samples_keep_the_groups() -> None:
    problem = tanh_problem(steps=4)
    other = problem.on(normal(2, 3, seed=9), normal(2, 3, seed=8))
    assert other.groups == problem.groups
    assert other.samples == 2
    assert problem.samples == 6
