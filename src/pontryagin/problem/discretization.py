"""Continuous dynamics dX/dt = f(X, theta) as stages, by the explicit Euler method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pontryagin.affine import form_on
from pontryagin.errors import ProblemError
from pontryagin.problem.admissible import Admissible
from pontryagin.problem.dynamics import Dynamics, EulerStep, Parameters
from pontryagin.problem.running_cost import RunningCost
from pontryagin.problem.stage import Stage, stage


def euler(
    dynamics: nn.Module | Dynamics | Sequence[nn.Module],
    step_size: float,
    steps: int | None = None,
    *,
    parameters: Mapping[str, Tensor] | None = None,
    running_cost: RunningCost | None = None,
    admissible: Admissible | None = None,
) -> list[Stage]:
    """Stages x_{n+1} = x_n + step_size * f(x_n, theta_n), n = 0 ... steps-1, so T = steps * step_size.

    dynamics: one module or function f(x, theta), used at every step with controls of its own, or a sequence
    of
        modules, one a step. It maps states (sample, *state) to changes of the same shape.
    step_size: delta > 0, in units of time. It is also the weight of the running cost, as in the continuous
        objective int L dt.
    steps: how many; only a sequence of modules says so by its length.
    parameters: names and initial values of theta, for a function; a module brings its own.
    running_cost, admissible: as in `stage`, of every step.

    Raises ProblemError for numbers that do not fit and for what `stage` refuses.
    Source: [LCTE] section 3.3, and Algorithm 2 with g = x + delta f.
    """
    each = list(dynamics) if isinstance(dynamics, Sequence) else [dynamics] * _count(steps)
    if steps is not None and len(each) != steps:
        raise ProblemError(f"expected {steps} modules, one a step, found {len(each)}")
    stages = []
    for number, f in enumerate(each):
        plain = stage(f, parameters, step_size=step_size, running_cost=running_cost, admissible=admissible)
        stages.append(replace(plain, dynamics=EulerStep(plain.dynamics, step_size), affine=None,
                              name=f"euler {number}: {plain.name}"))
    return stages


def split_euler(
    activation: Callable[[Tensor], Tensor],
    width: int,
    step_size: float,
    steps: int,
    *,
    running_cost: RunningCost | None = None,
    admissible: Admissible | None = None,
    dtype: torch.dtype | None = None,
) -> list[Stage]:
    """x_{n+1} = x_n + step_size * activation(W_n x_n + b_n), each step split at its affine map.

    A step is two stages: [x] -> [x; W x + b], affine in its control and so maximized in closed form, and
    [x; z] -> [x + step_size * activation(z)], without control. The objective is the same function of
    (W_n, b_n) as that of the unsplit problem. Controls (W by rows, then b) start at zero.

    activation: applied to each entry, (sample, width) -> (sample, width). width: length of the states.
    step_size, steps, running_cost, admissible: as in `euler`. dtype: of the controls, torch's default if
    None.
    """
    affine = AffineMap(width)
    start = torch.zeros(width * width + width, dtype=dtype)
    layout = (("weight", torch.Size([width, width])), ("bias", torch.Size([width])))
    form = form_on(width, affine.inputs, affine.adjoint, layout)
    move = stage(SplitStep(activation, width, step_size))
    first = replace(stage(affine, {"weight": start[:width * width].view(width, width),
                                   "bias": start[width * width:]},
                          step_size=step_size, running_cost=running_cost, admissible=admissible),
                    layout=layout, affine=form)
    stages = []
    for number in range(_count(steps)):
        stages += [replace(first, name=f"affine {number}"), replace(move, name=f"step {number}")]
    return stages


@dataclass(frozen=True)
class AffineMap:
    """[x] -> [x; W x + b], states of length width."""

    width: int

    def __call__(self, state: Tensor, parameters: Parameters) -> Tensor:
        affine = torch.addmm(parameters["bias"], state, parameters["weight"].mT)
        return torch.cat([state, affine], dim=-1)

    def inputs(self, state: Tensor) -> Tensor:
        """x."""
        return state

    def adjoint(self, costate: Tensor) -> Tensor:
        """u, the costate at z = W x + b."""
        return costate[..., self.width:]


@dataclass(frozen=True)
class SplitStep:
    """[x; z] -> [x + step_size * activation(z)]."""

    activation: Callable[[Tensor], Tensor]
    width: int
    step_size: float

    def __call__(self, state: Tensor, parameters: Parameters) -> Tensor:
        x, z = torch.split_with_sizes(state, (self.width, self.width), -1)
        # contiguous: twice as fast
        return torch.add(x, self.activation(z.contiguous()), alpha=self.step_size)


def _count(steps: int | None) -> int:
    if not isinstance(steps, int) or steps < 1:
        raise ProblemError(f"expected steps >= 1, found {steps!r}")
    return steps
