"""The depth of a residual network as a variable: a step of delta becomes two of delta / 2."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from pontryagin.errors import ProblemError
from pontryagin.problem.control_problem import ControlProblem, Controls
from pontryagin.problem.discretization import AffineMap, SplitStep
from pontryagin.problem.dynamics import EulerStep
from pontryagin.problem.stage import Stage


def refine(problem: ControlProblem, controls: Sequence[Tensor],
           where: Iterable[int] | None = None) -> tuple[ControlProblem, Controls]:
    """The problem with some steps halved, and the controls prolonged: both halves have those of the step.

    A step is a stage of `euler`, or two of `split_euler`; all other stages stay. As x' = f is the same, J
    changes by the error of the discretization alone. where: indices of steps among the steps (0 is the
    first), by default all. Raises ProblemError for a step that there is not, and where there is none.
    """
    controls, steps = problem.check_controls(controls), _steps(problem.stages)
    wanted = set(range(len(steps)) if where is None else where)
    if not steps or not wanted <= set(range(len(steps))):
        raise ProblemError(f"refine: expected steps among the {len(steps)} of euler or split_euler, found "
                           f"{sorted(wanted)}")
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
    return replace(problem, stages=stages), tuple(prolonged)


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
