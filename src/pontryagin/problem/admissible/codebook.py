"""Uniform codebooks of a few bits."""

from dataclasses import dataclass

from pontryagin.problem.admissible.discrete import DiscreteSet
from pontryagin.problem.admissible.grid import Grid, Scale, check_scale
from pontryagin.problem.errors import ProblemError


@dataclass(frozen=True)
class Codebook(DiscreteSet):
    """W_ij = a c with c in {-L, ..., L}, L = 2^(bits - 1) - 1: the signed integers of so many bits, without
    the unpaired one.

    bits from 2 (ternary) to 8. scale: fixed, or "row" for one per row.
    """

    bits: int
    scale: Scale = "row"

    def __post_init__(self) -> None:
        if not (isinstance(self.bits, int) and 2 <= self.bits <= 8):
            raise ProblemError(f"Codebook: expected bits from 2 to 8, found {self.bits!r}; for one bit use "
                               "Binary")
        check_scale("Codebook", self.scale)

    @property
    def grid(self) -> Grid:
        """The integers from -L to L."""
        return Grid(1, 2 ** (self.bits - 1) - 1)
