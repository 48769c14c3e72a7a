"""Non-negative entries."""

from dataclasses import dataclass
from math import inf

from pontryagin.problem.admissible.interval import Interval


@dataclass(frozen=True)
class NonNegative(Interval):
    """W_ij >= 0."""

    @property
    def bounds(self) -> tuple[float, float]:
        """0, infinity."""
        return 0.0, inf
