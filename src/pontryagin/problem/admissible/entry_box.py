"""Bounds of each entry of a whole control."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.errors import ProblemError


@dataclass(frozen=True)
class EntryBox:
    """low_i <= theta_i <= high_i, a pair of bounds for each entry of the flat control, perhaps infinite."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(a <= b for a, b in zip(self.low, self.high,
                                                                             strict=True)):
            raise ProblemError("EntryBox: expected as many lower as upper bounds, low <= high, found "
                               f"low={self.low}, high={self.high}")

    @property
    def unconstrained(self) -> bool:
        return all(a == -torch.inf and b == torch.inf for a, b in zip(self.low, self.high, strict=True))

    def bounds(self, like: Tensor) -> tuple[Float[Tensor, " control"], Float[Tensor, " control"]]:
        """low and high, of the dtype and on the device of `like`."""
        return like.new_tensor(self.low), like.new_tensor(self.high)

    def project(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage control"]:
        """Every entry clipped."""
        return control.clamp(*self.bounds(control))

    def contains(self, control: Float[Tensor, "*stage control"]) -> Bool[Tensor, "*stage"]:
        """Whether all entries are finite and within their bounds."""
        return (control.isfinite() & (control == self.project(control))).all(-1)
