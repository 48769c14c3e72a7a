"""The implicit midpoint method."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vmap

from pontryagin.continuous.integrators.protocol import RightSide, States, Times
from pontryagin.problem.forward_mode import load_rules

_SOLVED = 1e-9
"""Of 1 + |y|: with a larger residual before the last iteration, derivatives have not converged either."""


@dataclass(frozen=True)
class ImplicitMidpoint:
    """y' = y + h f(t + h/2, (y + y') / 2); order 2, symplectic, stable for stiff and oscillating dynamics.

    iterations: of Newton's method with the Jacobian at y; each multiplies the error by about h^2, and 10
        solve a smooth equation to rounding unless h is far too large. They are differentiated, the Jacobian
        is not: where they have converged, so have all derivatives. Where they have not, y' is NaN and the
        propagation says so.
    """

    iterations: int = 10

    def __call__(self, f: RightSide, t: Times, y: States, step: Times) -> States:
        load_rules()
        middle, eye = t + 0.5 * step, torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
        start = y.detach()

        def pushed(entry: Tensor) -> Tensor:  # samples are independent: one product serves all of them
            return jvp(lambda x: f(middle, x), (start,), (entry.expand_as(start),))[1]

        slope = vmap(pushed)(eye).permute(1, 2, 0)
        # not linalg.solve, whose forward derivatives under vmap are wrong in torch 2
        inverse = torch.linalg.inv(eye - 0.5 * step.unsqueeze(-1) * slope).detach()
        between = y
        for _ in range(self.iterations):
            residual = between - y - 0.5 * step * f(middle, between)
            between = between - (inverse @ residual.unsqueeze(-1)).squeeze(-1)
        failed = residual.detach().abs() > _SOLVED * (1 + start.abs())
        return torch.where(failed, torch.nan, 2 * between - y)
