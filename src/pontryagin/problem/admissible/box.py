"""Bounded entries."""

from dataclasses import dataclass
from math import inf, isnan

from pontryagin.problem.admissible.interval import Interval
from pontryagin.problem.errors import ProblemError


@dataclass(frozen=True)
class Box(Interval):
    """low <= W_ij <= high."""

    low: float | int
    high: float | int

    def __post_init__(self) -> None:
        if isnan(self.low) or isnan(self.high) or self.low > self.high or self.low == inf or self.high == -inf:
            raise ProblemError(f"Box: expected low <= high, found low={self.low}, high={self.high}: the set "
                               "is empty")

    @property
    def bounds(self) -> tuple[float, float]:
        """low, high."""
        return float(self.low), float(self.high)
