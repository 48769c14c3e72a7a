"""Small random problems in float64 and how to compare their numbers."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.hamiltonian import Penalties
from pontryagin.problem import (
    ControlProblem,
    Controls,
    CrossEntropy,
    Quadratic,
    RunningCost,
    SquaredError,
    Stage,
    euler,
    split_euler,
    stage,
)
from pontryagin.trajectory import StageGroup, group_stages, propagate

BOTH = Penalties(2.0, 0.7, everywhere=True)
STATE_ONLY = Penalties(2.0, 0.0)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Seeded normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def started(one: Stage, seed: int, scale: float = 0.5) -> Stage:
    """The stage with a random initial control."""
    return replace(one,
                   start=normal(one.size, seed=seed, scale=scale).to(one.start.dtype)) if one.size else one


class TanhAffine(nn.Module):
    """tanh(W x + b)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, dtype=torch.float64)

    def forward(self, state: Tensor) -> Tensor:
        return self.linear(state).tanh()


def bend(state: Tensor, parameters: object) -> Tensor:
    """A stage without control."""
    return state.sin() + 0.1 * state


def flat(state: Tensor, parameters: object) -> Tensor:
    """A stage without control that changes the shape."""
    return state.flatten(1)


def scale_and_shift(state: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """A function stage with a scalar and a vector parameter."""
    return state.cos() * parameters["scale"] + parameters["shift"]


VECTOR_KINDS = ("linear", "no bias", "tanh", "norm", "bend", "split", "function")
IMAGE_KINDS = ("conv", "linear", "tanh", "norm", "bend", "function")


def stages_of(kind: str, shape: Sequence[int], cost: RunningCost | None = None) -> list[Stage]:
    """Stages of one kind for states of this shape."""
    width, f64 = shape[-1], torch.float64
    if kind == "bend":
        return [stage(bend)]
    if kind == "tanh":
        return euler(TanhAffine(width), 0.3, 2, running_cost=cost)
    if kind == "split":
        return split_euler(torch.tanh, width, 0.3, 2, running_cost=cost, dtype=f64)
    if kind == "function":
        parameters = {"scale": torch.tensor(0.0, dtype=f64), "shift": torch.zeros(width, dtype=f64)}
        return [stage(scale_and_shift, parameters, running_cost=cost, step_size=0.5)]
    module = {
        "linear": lambda: nn.Linear(width, width + 1, dtype=f64),
        "no bias": lambda: nn.Linear(width, 3, bias=False, dtype=f64),
        "norm": lambda: nn.LayerNorm(tuple(shape), dtype=f64),
        "conv": lambda: nn.Conv2d(shape[0], 3, (2, 3), padding=1, dtype=f64),
    }[kind]()
    return [stage(module, running_cost=cost)]


def mixed_problem(image_kinds: Sequence[str], vector_kinds: Sequence[str], seed: int,
                  samples: int = 4) -> ControlProblem:
    """Image stages, a flattening, vector stages, and a last linear stage; every second kind has a running
    cost."""
    state = initial = normal(samples, 2, 3, 2, seed=seed)
    stages: list[Stage] = []
    for number, kind in enumerate((*image_kinds, "flat", *vector_kinds, "linear")):
        cost = Quadratic(0.3) if number % 2 else None
        new = [stage(flat)] if kind == "flat" else stages_of(kind, state.shape[1:], cost)
        for one in new:
            stages.append(started(one, seed=1000 * seed + len(stages), scale=0.4))
            state = stages[-1](state, stages[-1].start)
    if seed % 2:
        return ControlProblem(stages, CrossEntropy(), initial, torch.arange(samples) % state.shape[1])
    return ControlProblem(stages, SquaredError(), initial, normal(*state.shape, seed=seed + 1))


def tanh_problem(steps: int = 3, width: int = 3, samples: int = 6, seed: int = 0, scale: float = 0.5,
                 cost: RunningCost | None = None) -> ControlProblem:
    """Residual tanh stages and a squared error: the paper's kind of problem."""
    stages = [started(one, seed=seed + n, scale=scale)
              for n, one in enumerate(euler(TanhAffine(width), 0.5, steps, running_cost=cost))]
    return ControlProblem(stages, SquaredError(), normal(samples, width, seed=seed + 50),
                          normal(samples, width, seed=seed + 51))


def split_problem(steps: int = 3, width: int = 3, samples: int = 6, seed: int = 0, scale: float = 0.5,
                  cost: RunningCost | None = None) -> ControlProblem:
    """The same dynamics as tanh_problem, every step split at its affine map."""
    stages = split_euler(torch.tanh, width, 0.5, steps, running_cost=cost, dtype=torch.float64)
    stages = [started(one, seed=seed + n // 2, scale=scale) for n, one in enumerate(stages)]
    return ControlProblem(stages, SquaredError(), normal(samples, width, seed=seed + 50),
                          normal(samples, width, seed=seed + 51))


def linear_problem(shape: Sequence[int] = (3,), bias: bool = True, samples: int = 7, seed: int = 0,
                   cost: RunningCost | None = None, initial: Tensor | None = None) -> ControlProblem:
    """Three equal linear stages with bends between them."""
    width = shape[-1]
    stages: list[Stage] = []
    for n in range(3):
        linear = stage(nn.Linear(width, width, bias=bias, dtype=torch.float64), running_cost=cost)
        stages += [started(linear, seed=seed + n), stage(bend)]
    initial = normal(samples, *shape, seed=seed + 50) if initial is None else initial
    return ControlProblem(stages, SquaredError(), initial, normal(*initial.shape, seed=seed + 51))


def conv_problem(seed: int = 0) -> ControlProblem:
    """Two equal convolutions with a bend between them."""
    conv = [started(stage(nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64)), seed=seed + n)
            for n in range(2)]
    initial = normal(4, 2, 3, 3, seed=seed + 50)
    return ControlProblem([conv[0], stage(bend), conv[1]], SquaredError(), initial,
                          normal(*initial.shape, seed=seed + 51))


def objective(problem: ControlProblem, controls: Sequence[Tensor]) -> Tensor:
    """J, written out."""
    state, cost = problem.initial_state, torch.zeros((), dtype=problem.initial_state.dtype)
    for one, control in zip(problem.stages, controls, strict=True):
        state = one(state, control)
        if one.size:
            cost = cost + one.step_size * one.running_cost(control)
    return problem.terminal_cost(state, problem.target).mean() + cost


def groups_of(problem: ControlProblem, controls: Controls | None = None) -> list[StageGroup]:
    """The groups at the trajectory of these controls."""
    controls = problem.initial_controls() if controls is None else controls
    return group_stages(problem, controls, propagate(problem, controls))


@dataclass(eq=False)
class Counted:
    """Dynamics that count their evaluations. Two are never equal, so stages with dynamics of their own are
    not batched."""

    dynamics: object
    calls: int = 0

    def __call__(self, state: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        return self.dynamics(state, parameters)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-9, least: float = 0.0) -> None:
    """The largest difference is at most tolerance times the largest expected entry (times 1 if that is 0),
    which counts as `least` if it is smaller."""
    assert found.shape == expected.shape, f"{tuple(found.shape)} is not {tuple(expected.shape)}"
    if not expected.numel():
        return
    scale = max(float(expected.abs().max()), least) or 1.0
    error = float((found - expected).abs().max())
    assert error <= tolerance * scale, f"relative difference {error / scale:.3g} > {tolerance:.3g}"


def assert_all_close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """assert_close of each pair."""
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, tolerance)


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A public function as users have it: with its own refusals, without the tests' checks of types."""
    return inspect.unwrap(function)
