"""Three values."""

from dataclasses import dataclass

from pontryagin.problem.admissible.discrete import DiscreteSet
from pontryagin.problem.admissible.grid import Grid, Scale, check_scale


@dataclass(frozen=True)
class Ternary(DiscreteSet):
    """W_ij in {-1, 0, 1}, or {-a, 0, a} with a fixed scale a, or {-a_i, 0, a_i} with scale="row"."""

    scale: Scale = 1.0

    def __post_init__(self) -> None:
        check_scale("Ternary", self.scale)

    @property
    def grid(self) -> Grid:
        """-1, 0, 1."""
        return Grid(1, 1)
