"""An adaptive Runge-Kutta method of torchdiffeq."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from pontryagin.continuous.integrators.protocol import RightSide, States, Times
from pontryagin.problem import ProblemError


@dataclass(frozen=True)
class Adaptive:
    """An interval by as many steps as torchdiffeq's `method` needs for its tolerances, the same for all
    samples.

    Gradients are those of the steps taken, to about the tolerances those of the differential equation. How
    many there are depends on the states, which vmap cannot follow: for `propagate`, `checkpointed`, `solve`
    with a minimizer that needs first derivatives alone, and to see what a solution on a mesh is worth:
    `replace(found.discretization, integrator=Adaptive())`.

    rtol, atol: > 0, of the error of a step. Raises ProblemError for others, without torchdiffeq (the extra
    `ode`), and where NewtonMSA or a maximizer asks for a batch of stages.
    Source: Dormand and Prince 1980; Chen 2018, torchdiffeq.
    """

    rtol: float = 1e-9
    atol: float = 1e-9
    method: str = "dopri5"

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0):
            raise ProblemError(f"Adaptive: expected tolerances > 0, found {self.rtol} and {self.atol}")
        _solver()

    def __call__(self, f: RightSide, t: Times, y: States, step: Times) -> States:
        try:
            float(y.detach().sum())
        except RuntimeError as error:
            raise ProblemError("Adaptive cannot be batched over stages, since its steps depend on the "
                               "states: use RK4(), or a minimizer that needs first derivatives alone"
                               ) from error

        def scaled(s: Tensor, state: States) -> States:  # intervals may differ from sample to sample
            return step * f(t + s * step, state)

        ends = torch.tensor([0.0, 1.0], dtype=y.dtype, device=y.device)
        return _solver()(scaled, y, ends, rtol=self.rtol, atol=self.atol, method=self.method)[-1]


def _solver() -> Callable[..., Tensor]:
    try:
        found: Callable[..., Tensor] = import_module("torchdiffeq").odeint
        return found
    except ModuleNotFoundError as error:
        raise ProblemError("Adaptive needs torchdiffeq, which is not installed: pip install "
                           "'pontryagin[ode]', or use RK4() with substeps") from error
