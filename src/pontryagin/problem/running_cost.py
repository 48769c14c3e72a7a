"""Running costs L(theta): the regularizer that a stage adds to the objective, times its step size."""

from dataclasses import dataclass
from math import isfinite
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from pontryagin.errors import ProblemError


@runtime_checkable
class RunningCost(Protocol):
    """L(theta) of one stage. Costs compare equal when they are the same function."""

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        """The cost of each control, before the factor delta."""


@dataclass(frozen=True)
class NoCost:
    """L(theta) = 0."""

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        return control.new_zeros(control.shape[:-1])


@dataclass(frozen=True)
class _Weighted:
    """A cost with a weight, finite and >= 0; every entry of the control counts, biases too."""

    weight: float

    def __post_init__(self) -> None:
        if not (isfinite(self.weight) and self.weight >= 0):
            raise ProblemError(f"{type(self).__name__} running cost: expected a finite weight >= 0, found "
                               f"{self.weight}")


@dataclass(frozen=True)
class Quadratic(_Weighted):
    """L(theta) = weight/2 |theta|^2, weight >= 0; every entry of the control counts, biases too."""

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        return 0.5 * self.weight * control.square().sum(dim=-1)


@dataclass(frozen=True)
class L1(_Weighted):
    """L(theta) = weight |theta|_1, weight >= 0: sparse and small; every entry counts, biases too."""

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        return self.weight * control.abs().sum(dim=-1)


@dataclass(frozen=True)
class L0(_Weighted):
    """L(theta) = weight times the number of non-zero entries, weight >= 0; every entry counts, biases too.

    Its derivative is 0 wherever it exists: only maximizers that compare values see it.
    """

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        return self.weight * (control != 0).sum(dim=-1).to(control.dtype)
