"""The control problem: stages, terminal cost and data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.problem.stage import Stage
from pontryagin.problem.terminal_cost import TerminalCost

Controls = tuple[Float[Tensor, " _"], ...]
"""theta_0 ... theta_{N-1}, a flat vector for each stage (of length 0 for a stage without control)."""

_WRONG_CALL = (RuntimeError, ValueError, IndexError, TypeError)
"""What torch raises for shapes and dtypes that do not fit."""


@dataclass(frozen=True, eq=False)
class ControlProblem:
    """Minimize J(theta) = mean_i Phi_i(x_N^i) + sum_n delta_n L_n(theta_n) over theta_n in Theta_n,
    subject to x_{n+1} = g_n(x_n, theta_n), x_0 given, for all samples i. ([LCTE] equation 3, discretized.)

    stages: g_0 ... g_{N-1}, made by `stage`, `euler` or `split_euler`; the shapes of states may change.
    terminal_cost: Phi, a function of final states (sample, *state) and targets: one number for each sample.
    initial_state: x_0, (sample, *state), floating point. target: what Phi takes, its first axis the samples.

    Raises ProblemError, naming the stage, when shapes do not fit or no stage has a control, and
    NonFiniteError when the data are not finite.
    """

    stages: Sequence[Stage]
    terminal_cost: TerminalCost
    initial_state: Shaped[Tensor, " sample *state"]
    target: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if not self.stages:
            raise ProblemError("expected at least one stage, found none")
        for stage in self.stages:
            if not isinstance(stage, Stage):
                raise ProblemError(f"expected a Stage, found {type(stage).__name__}: wrap it with stage(...)")
        if not any(stage.size for stage in self.stages):
            raise ProblemError(f"none of the {len(self.stages)} stages has a control: there is nothing to "
                               "maximize")
        _check_data(self.initial_state, self.target)
        self.state_shapes  # noqa: B018 - a forward pass of two samples: shapes are checked before any work

    @cached_property
    def state_shapes(self) -> tuple[torch.Size, ...]:
        """The shapes of x_0 ... x_N without the sample axis."""
        # two samples: enough to tell a cost of each from a mean over them
        state, shapes = self.initial_state[:2], [self.initial_state.shape[1:]]
        samples = len(state)
        with torch.no_grad():
            for number, stage in enumerate(self.stages):
                state = _apply(number, stage, state)
                shapes.append(state.shape[1:])
            cost = _terminal(self.terminal_cost, state, self.target[:2])
        if cost.shape != (samples,):
            raise ProblemError(f"the terminal cost must give one number a sample: for {samples} samples "
                               f"expected shape ({samples},), found {tuple(cost.shape)}; do not average over "
                               "the batch")
        return tuple(shapes)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the stages that have a control, equal ones (function and shapes) together, in order."""
        groups: list[list[int]] = []
        for index, stage in enumerate(self.stages):
            if not stage.size:
                continue
            for group in groups:
                if (self.stages[group[0]].matches(stage)
                        and self.state_shapes[group[0]] == self.state_shapes[index]):
                    group.append(index)
                    break
            else:
                groups.append([index])
        return tuple(tuple(group) for group in groups)

    def upstream(self, indices: Sequence[int]) -> tuple[bool, ...]:
        """Of each of these stages, whether an earlier one has a control."""
        first = next(n for n, stage in enumerate(self.stages) if stage.size)
        return tuple(n > first for n in indices)

    @property
    def samples(self) -> int:
        """The number of samples, K."""
        return self.initial_state.shape[0]

    def initial_controls(self) -> Controls:
        """A copy of the controls that the stages start from."""
        return tuple(stage.start.clone() for stage in self.stages)

    def on(self, initial_state: Shaped[Tensor, " sample *state"], target: Tensor) -> "ControlProblem":
        """The same problem on other samples, such as a mini-batch or a test set."""
        if initial_state.shape[1:] != self.initial_state.shape[1:]:
            raise ProblemError(f"expected states of shape {tuple(self.initial_state.shape[1:])}, "
                               f"found {tuple(initial_state.shape[1:])}")
        other = replace(self, initial_state=initial_state, target=target)
        other.__dict__["groups"] = self.groups  # stages and shapes are the same
        return other

    def check_controls(self, controls: Sequence[Tensor]) -> Controls:
        """The controls as a tuple; ProblemError when their number, shapes, dtypes or sets do not fit."""
        if len(controls) != len(self.stages):
            raise ProblemError(f"expected {len(self.stages)} controls, one a stage, found {len(controls)}")
        for number, (stage, control) in enumerate(zip(self.stages, controls, strict=True)):
            where, start = f"stage {number} ({stage.name})", stage.start
            if control.shape != start.shape:
                raise ProblemError(f"{where}: expected a control of shape {tuple(start.shape)}, found "
                                   f"{tuple(control.shape)}")
            if stage.size and (control.dtype, control.device) != (start.dtype, start.device):
                raise ProblemError(f"{where}: expected a control of dtype {start.dtype} on {start.device}, "
                                   f"found {control.dtype} on {control.device}")
            if stage.size and not stage.admissible.contains(control).all():
                raise ProblemError(f"{where}: the control lies outside {stage.admissible!r}")
        return tuple(controls)

    def running_cost(self, controls: Controls) -> Tensor:
        """sum_n delta_n L_n(theta_n)."""
        costs = [stage.cost(control)
                 for stage, control in zip(self.stages, controls, strict=True) if stage.size]
        return torch.stack(costs).sum()


def _apply(number: int, stage: Stage, state: Tensor) -> Tensor:
    where = f"stage {number} ({stage.name})"
    found = f"states of shape {tuple(state.shape[1:])} and dtype {state.dtype}"
    origin = "the initial state" if number == 0 else f"stage {number - 1}"
    try:
        result = stage(state, stage.start)
    except _WRONG_CALL as error:
        raise ProblemError(f"{where} cannot take {found} from {origin}: {error}") from error
    if not isinstance(result, Tensor) or result.ndim == 0 or result.shape[0] != state.shape[0]:
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise ProblemError(f"{where} must return one state a sample: for {len(state)} samples found {shape}")
    if not result.is_floating_point():
        raise ProblemError(f"{where} must return floating-point states, found {result.dtype}")
    return result


def _terminal(terminal_cost: TerminalCost, state: Tensor, target: Tensor) -> Tensor:
    try:
        return terminal_cost(state, target)
    except _WRONG_CALL as error:
        raise ProblemError(f"the terminal cost cannot take final states of shape {tuple(state.shape[1:])} "
                           f"and targets of shape {tuple(target.shape[1:])}: {error}") from error


def _check_data(initial_state: Tensor, target: Tensor) -> None:
    if initial_state.is_complex() or initial_state.dtype == torch.bool:
        raise ProblemError("the initial state must be floating point, or whole numbers for a stage that "
                           f"looks them up, found {initial_state.dtype}")
    if initial_state.ndim < 1 or initial_state.shape[0] == 0:
        raise ProblemError(f"the initial state holds no sample: its shape is {tuple(initial_state.shape)}")
    if target.ndim < 1 or target.shape[0] != initial_state.shape[0]:
        raise ProblemError(f"expected a target for each of {initial_state.shape[0]} samples, found shape "
                           f"{tuple(target.shape)}")
    for name, value in (("initial state", initial_state), ("target", target)):
        if value.is_floating_point() and not value.isfinite().all():
            row = int((~value.isfinite()).reshape(value.shape[0], -1).any(1).nonzero()[0, 0])
            raise NonFiniteError(f"the {name} holds NaN or infinite values, first in sample {row}; remove "
                                 "such samples")
