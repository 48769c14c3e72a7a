"""Running costs L(theta): the regularizer that a stage adds to the objective, times its step size."""

from dataclasses import dataclass
from math import isfinite
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from pontryagin.problem.errors import ProblemError


@runtime_checkable
class RunningCost(Protocol):
    """L(theta) of one stage. Costs compare equal when they are the same function."""

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        """The cost of each control, before the factor delta."""


@dataclass(frozen=True)
class NoCost:
    """L(theta) = 0."""

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        """Zero for each control."""
        return control.new_zeros(control.shape[:-1])


@dataclass(frozen=True)
class Quadratic:
    """L(theta) = weight/2 |theta|^2, weight >= 0; every entry of the control counts, biases too."""

    weight: float

    def __post_init__(self) -> None:
        _check_weight("Quadratic", self.weight)

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        """weight/2 times the squared norm of each control."""
        return 0.5 * self.weight * control.square().sum(dim=-1)


@dataclass(frozen=True)
class L1:
    """L(theta) = weight |theta|_1, weight >= 0: sparse and small; every entry of the control counts, biases
    too."""

    weight: float

    def __post_init__(self) -> None:
        _check_weight("L1", self.weight)

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        """weight times the sum of absolute values."""
        return self.weight * control.abs().sum(dim=-1)


@dataclass(frozen=True)
class L0:
    """L(theta) = weight times the number of non-zero entries, weight >= 0; every entry counts, biases too.

    Its derivative is 0 wherever it exists: only maximizers that compare values see it.
    """

    weight: float

    def __post_init__(self) -> None:
        _check_weight("L0", self.weight)

    def __call__(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        """weight times the number of non-zero entries."""
        return self.weight * (control != 0).sum(dim=-1).to(control.dtype)


def _check_weight(name: str, weight: float) -> None:
    if not (isfinite(weight) and weight >= 0):
        raise ProblemError(f"{name} running cost: expected a finite weight >= 0, found {weight}")
