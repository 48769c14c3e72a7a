"""What every integrator is: one step of dy/dt = f(t, y)."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Times = Float[Tensor, "sample 1"]
States = Float[Tensor, "sample state"]
RightSide = Callable[[Times, States], States]
"""f(t, y), each sample alone."""


@runtime_checkable
class Integrator(Protocol):
    """One step of an initial value problem. One file a method; new ones need only this.

    Whatever autograd and vmap can go through will do: costates are those of the discretized problem, so they
    need no adjoint equation of their own and gradients of J are exact.
    """

    def __call__(self, f: RightSide, t: Times, y: States, step: Times) -> States:
        """y(t + step) from y(t). step may differ from sample to sample."""
