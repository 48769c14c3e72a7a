"""Sets of matrices whose entries lie in one interval, each by itself."""

from abc import abstractmethod

from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.problem.admissible.protocol import MatrixSet


class Interval(MatrixSet):
    """low <= W_ij <= high for every entry; a bound may be infinite."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """low, high."""

    def project(self, weight: Float[Tensor, "*stage row input"]) -> Float[Tensor, "*stage row input"]:
        """Every entry clipped."""
        return weight.clamp(*self.bounds)

    def contains(self, weight: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """Whether all entries are finite and within the bounds."""
        inside = weight.isfinite() & (weight == weight.clamp(*self.bounds))
        return inside.flatten(-2).all(-1)
