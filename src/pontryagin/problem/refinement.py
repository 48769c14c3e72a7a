"""The depth of a residual network as a variable: a step of delta becomes two of delta / 2."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from pontryagin.affine import PenalizedArgmax, stage_moments
from pontryagin.errors import ProblemError
from pontryagin.problem.control_problem import ControlProblem, Controls
from pontryagin.problem.discretization import AffineMap, SplitStep
from pontryagin.problem.dynamics import EulerStep
from pontryagin.problem.stage import Stage

_DAMPING = 1e-4
"""Of the fit, relative to the mean of the moment's diagonal: without it controls of some thousands come where
states hardly differ, with 1e-3 the loss of a trained network doubles."""


def refine(problem: ControlProblem, controls: Sequence[Tensor], where: Iterable[int] | None = None,
           keep: Literal["controls", "states"] = "controls") -> tuple[ControlProblem, Controls]:
    """The problem with some steps halved, and the controls prolonged: both halves have those of the step.

    A step is a stage of `euler`, or two of `split_euler`; all other stages stay. As x' = f is the same, J
    changes by the error of the discretization alone. keep="states" prolongs what has been trained: the second
    half of a `split_euler` step over R^p gets the W' and b' for which its pre-activations in the middle of
    the step, y, are those of the step at its start, by least squares over the samples,

        min mean |W' y + b' - (W x + b)|^2,

    so that the states, and J, are nearly what they were. where: indices of steps among the steps (0 is the
    first), by default all. Raises ProblemError for a step that there is not, where there is none, and for
    another word to keep.
    """
    if keep not in ("controls", "states"):
        raise ProblemError(f'refine: expected keep="controls" or keep="states", found {keep!r}')
    controls, steps = problem.check_controls(controls), _steps(problem.stages)
    wanted = list(range(len(steps)) if where is None else where)
    if not steps or not all(type(k) is int and 0 <= k < len(steps) for k in wanted):
        raise ProblemError(f"refine: expected indices of steps among the {len(steps)} of euler or "
                           f"split_euler, found {wanted}")
    halved = {steps[k][0]: steps[k] for k in wanted}
    stages: list[Stage] = []
    prolonged: list[Tensor] = []
    n = 0
    while n < len(problem.stages):
        indices = halved.get(n, (n,))
        for _ in range(2 if n in halved else 1):
            stages += [_half(problem.stages[i]) if n in halved else problem.stages[i] for i in indices]
            prolonged += [controls[i].clone() for i in indices]
        n += len(indices)
    finer = replace(problem, stages=stages)
    if keep == "states":
        prolonged = _fitted(problem, controls, finer, prolonged, halved)
    return finer, tuple(prolonged)


@torch.no_grad()
def _fitted(problem: ControlProblem, controls: Controls, finer: ControlProblem, prolonged: list[Tensor],
            halved: dict[int, tuple[int, ...]]) -> list[Tensor]:
    """The prolonged controls, those of affine second halves fitted to the states of the problem."""
    new, place, n = list(prolonged), 0, 0
    x = y = problem.initial_state
    while n < len(problem.stages):
        indices = halved.get(n, (n,))
        count = len(indices) * (1 + (n in halved))
        for k, one in enumerate(finer.stages[place:place + count], place):
            first = k == place + len(indices) and len(indices) == 2
            if first and one.affine is not None and one.admissible.unconstrained:
                left = problem.stages[n](x, controls[n]) - one(y, new[k])
                new[k] = new[k] + _least_squares(one, y, left)
            y = one(y, new[k])
        for i in indices:
            x = problem.stages[i](x, controls[i])
        place, n = place + count, n + len(indices)
    return new


def _least_squares(one: Stage, state: Tensor, left: Tensor) -> Tensor:
    """The change of an affine stage's control whose outputs are nearest to what is left."""
    form = one.affine
    assert form is not None
    moments = stage_moments(form, [state], [left])
    change = PenalizedArgmax(form, moments, _DAMPING, 0.0).solve(
        moments.gradient, moments.bias_gradient, 1.0, state.new_zeros(1))
    return form.control(*change)[0]


def _steps(stages: Sequence[Stage]) -> list[tuple[int, ...]]:
    """The indices of the stages of every step."""
    steps: list[tuple[int, ...]] = []
    for n, one in enumerate(stages):
        if isinstance(one.dynamics, EulerStep):
            steps.append((n,))
        elif (isinstance(one.dynamics, AffineMap) and n + 1 < len(stages)
              and isinstance(stages[n + 1].dynamics, SplitStep)):
            steps.append((n, n + 1))
    return steps


def _half(one: Stage) -> Stage:
    """With half the step, in the dynamics and as the weight of the running cost."""
    dynamics = one.dynamics
    if isinstance(dynamics, EulerStep | SplitStep):
        dynamics = replace(dynamics, step_size=0.5 * dynamics.step_size)
    return replace(one, dynamics=dynamics, step_size=0.5 * one.step_size)
