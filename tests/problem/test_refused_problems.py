"""Problems that make no sense are refused: the message says what was expected and what was found."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from builders import TanhAffine, bend, normal, tanh_problem
from pontryagin.problem import (
    ControlProblem,
    CrossEntropy,
    NonFiniteError,
    ProblemError,
    Quadratic,
    SquaredError,
    Stage,
    stage,
)

F64 = torch.float64
X, Y = normal(4, 3), normal(4, 2, seed=1)


def linear(inputs: int = 3, outputs: int = 2, dtype: torch.dtype = F64) -> Stage:
    return stage(nn.Linear(inputs, outputs, dtype=dtype))


def problem(*stages: Any, cost: Any = None, x: Tensor = X, y: Tensor = Y) -> ControlProblem:
    return ControlProblem(stages, cost or SquaredError(), x, y)


def mean_error(state: Tensor, target: Tensor) -> Tensor:
    return (state - target).square().mean()


def kept_mean(state: Tensor, target: Tensor) -> Tensor:
    return (state - target).square().sum(1).mean(0, keepdim=True)


def half_steps(x: Tensor, theta: object) -> Tensor:
    return (10 * x).long()


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no stage": (lambda: problem(), "expected at least one stage, found none"),
    "no control": (lambda: problem(stage(bend), y=X), "none of the 1 stages has a control"),
    "shapes between stages": (
        lambda: problem(linear(3, 4), linear(5, 2)),
        r"stage 1 \(Linear\) cannot take states of shape \(4,\) and dtype torch.float64 from stage 0"),
    "shape of the first stage": (
        lambda: problem(linear(5, 2)),
        r"stage 0 \(Linear\) cannot take states of shape \(3,\).* from the initial state"),
    "types between stages": (
        lambda: problem(linear(dtype=torch.float32)),
        r"stage 0 \(Linear\) cannot take states of .* dtype torch.float64"),
    "samples lost": (
        lambda: problem(linear(3, 4), stage(lambda x, _: x.sum(0))),
        r"must return one state a sample: .* found \(4,\)"),
    "integer states": (lambda: problem(linear(), stage(half_steps)),
                       r"stage 1 \(half_steps\) must return floating-point "
                                                                     "states, found torch.int64"),
    "euler shape": (lambda: problem(stage(bend), *_euler_of(nn.Linear(3, 2, dtype=F64))),
                    r"maps states of shape \(3,\) to \(2,\); an Euler step needs equal shapes"),
    "target shape": (lambda: problem(linear(3, 4)),
                     r"final states of shape \(4,\) and targets of shape \(2,\)"),
    "target count": (lambda: problem(linear(), y=Y[:3]),
                     r"a target for each of 4 samples, found shape \(3, 2\)"),
    "class indices": (lambda: problem(linear(), cost=CrossEntropy(), y=torch.tensor([0, 1, 5, 7]) + 4),
                      "the terminal cost cannot take final states"),
    "no samples": (lambda: problem(linear(), x=X[:0], y=Y[:0]), r"holds no sample: its shape is \(0, 3\)"),
    "mean cost": (lambda: problem(linear(), cost=mean_error),
                  r"one number a sample: .* found \(\); do not average"),
    "mean cost with an axis": (
        lambda: problem(linear(), cost=kept_mean), r"one number a sample: .* found \(1,\); do not average"),
    "integer parameters": (
        lambda: stage(bend, {"u": torch.arange(3)}),
        "'u': expected a floating-point tensor, found torch.int64"),
    "parameters of a module": (lambda: stage(nn.Linear(2, 2), {"u": X}),
                               "a module brings its own parameters"),
    "batch norm": (lambda: stage(nn.Sequential(nn.BatchNorm1d(3))),
                   r"module 0 \(BatchNorm1d\) couples the samples.*\.eval"),
    "batch norm without statistics": (
        lambda: stage(nn.BatchNorm1d(3, track_running_stats=False).eval()),
        "BatchNorm1d.* couples the samples"),
    "dropout": (lambda: stage(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))),
                r"module 1 \(Dropout\) is random.*\.eval"),
    "negative weight": (lambda: Quadratic(-1.0), "expected a finite weight >= 0, found -1"),
    "nan weight": (lambda: Quadratic(float("nan")), "expected a finite weight >= 0, found nan"),
    "step size": (lambda: stage(nn.Linear(3, 3), step_size=0.0),
                  "Linear: expected a finite step_size > 0, found 0"),
    "start": (lambda: stage(bend, {"u": torch.tensor([float("inf")])}),
              "bend: the initial control holds NaN or infinite"),
    "layout": (lambda: Stage(bend, torch.zeros(3), (("u", torch.Size([2])),)),
               "does not add up to a control of length 3"),
}


def _euler_of(module: nn.Module) -> list[Stage]:
    from pontryagin.problem import euler

    return euler(module, 0.5, 1)


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["initial state", "target"])
def test_data_that_are_not_finite_are_refused_by_sample(name: str, value: float) -> None:
    x, y = X.clone(), Y.clone()
    (x if name == "initial state" else y)[2, 1] = value
    with pytest.raises(NonFiniteError, match=f"the {name} holds NaN or infinite values, first in sample 2"):
        problem(linear(), x=x, y=y)


def test_fit_modules_in_evaluation_mode_are_taken() -> None:
    module = nn.Sequential(nn.Linear(3, 3, dtype=F64), nn.BatchNorm1d(3, dtype=F64), nn.Dropout(0.5)).eval()
    assert problem(stage(module), linear()).state_shapes == ((3,), (3,), (2,))
    assert stage(nn.Dropout(0.0)).size == 0


def test_a_stage_is_a_copy_of_its_module() -> None:
    module = TanhAffine(3)
    one = stage(module)
    before = one.start.clone()
    with torch.no_grad():
        module.linear.weight.zero_()
    assert torch.equal(one.start, before)


CONTROLS = tanh_problem().initial_controls()
BAD_CONTROLS: dict[str, tuple[tuple[Tensor, ...], str]] = {
    "too few": (CONTROLS[:2], "expected 3 controls, one a stage, found 2"),
    "too long": ((*CONTROLS[:2], torch.zeros(13, dtype=F64)),
                 r"stage 2 \(euler 2: TanhAffine\): expected a control of shape \(12,\), found \(13,\)"),
    "not finite": ((CONTROLS[0], CONTROLS[1] / 0, CONTROLS[2]),
                   r"stage 1 .*: the control lies outside RealSpace\(\)"),
    "wrong type": ((CONTROLS[0], CONTROLS[1], CONTROLS[2].float()),
                   r"stage 2 .*: expected a control of dtype torch.float64 on cpu, found torch.float32"),
}


@pytest.mark.parametrize(("controls", "message"), BAD_CONTROLS.values(), ids=BAD_CONTROLS)
def test_controls_that_do_not_fit_are_refused(controls: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        tanh_problem().check_controls(controls)


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(ProblemError, match=r"expected states of shape \(3,\), found \(4,\)"):
        tanh_problem().on(normal(2, 4), normal(2, 4))
