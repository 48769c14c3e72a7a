"""Sets of matrices whose entries are integer codes times a scale."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.errors import ProblemError
from pontryagin.problem.admissible.grid import Grid, Scale, best_scale, check_scale
from pontryagin.problem.admissible.sets import Matrix, MatrixSet


class DiscreteSet(MatrixSet):
    """W_ij = a_i c_ij with codes c of a grid. scale: a_i = scale for all rows, or "row": any a_i > 0 for each
    row.

    Scales of rows are numbers with so few binary digits that a_i c_ij is exact in the dtype of W.
    """

    scale: Scale

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """The codes."""

    def project(self, weight: Matrix) -> Matrix:
        """The nearest codes, and with a scale per row the scale that goes with them (a global minimum over
        both).

        ProblemError for a row of zeros when 0 is no code and its scale is free: no scale > 0 is nearest.
        """
        if self.scale != "row":
            return self.grid.nearest(weight / self.scale) * self.scale
        codes, scales = best_scale(weight.reshape(-1, weight.shape[-1]), self.grid)
        if 0 not in self.grid.codes and not (scales > 0).all():
            raise ProblemError(f"{self!r}: row {int((~(scales > 0)).nonzero()[0, 0])} holds zeros only (or "
                               "NaN), so no scale > 0 is nearest to it; start from other weights, or give a "
                               "fixed scale")
        nearest = (codes * scales.unsqueeze(1)).view(weight.shape)
        return torch.where(self._inside(weight).unsqueeze(-1), weight, nearest)

    def contains(self, weight: Matrix) -> Bool[Tensor, "*stage"]:
        """Whether every entry equals a code times its scale, bit by bit."""
        return self._inside(weight).all(-1)

    def encode(self, weight: Matrix) -> tuple[Tensor, Float[Tensor, "*stage row"]]:
        """Codes (int8) and scales with codes * scales = W exactly. ProblemError when W is not in the set."""
        if not self.contains(weight).all():
            raise ProblemError(f"a matrix of shape {tuple(weight.shape)} lies outside {self!r}; project it "
                               "first")
        codes, scales = self._decompose(weight)
        return codes.to(torch.int8), scales

    def _inside(self, weight: Tensor) -> Tensor:
        codes, scales = self._decompose(weight)
        return (codes * scales.unsqueeze(-1) == weight).all(-1) & (scales > 0)

    def _decompose(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The codes and scales that could be those of W; of several scales the largest."""
        if self.scale != "row":
            scales = torch.full_like(weight[..., 0], self.scale)
            return self.grid.nearest(weight / self.scale), scales
        largest = weight.abs().amax(-1)
        scales = torch.where(largest > 0, largest, 1.0 if 0 in self.grid.codes else 0.0)
        found = self._exact(weight, scales)
        for code in range(2, self.grid.limit + 1):
            if found.all():
                break
            shorter = largest / code
            fits = ~found & self._exact(weight, shorter)
            scales, found = torch.where(fits, shorter, scales), found | fits
        return self.grid.nearest(weight / scales.unsqueeze(-1)), scales

    def _exact(self, weight: Tensor, scales: Tensor) -> Tensor:
        each = scales.unsqueeze(-1)
        return (self.grid.nearest(weight / each) * each == weight).all(-1)


@dataclass(frozen=True)
class Binary(DiscreteSet):
    """W_ij in {-1, 1}, or {-a, a} with a fixed scale a, or {-a_i, a_i} with scale="row"."""

    scale: Scale = 1.0

    def __post_init__(self) -> None:
        check_scale("Binary", self.scale)

    @property
    def grid(self) -> Grid:
        return Grid(2, 1)


@dataclass(frozen=True)
class Ternary(DiscreteSet):
    """W_ij in {-1, 0, 1}, or {-a, 0, a} with a fixed scale a, or {-a_i, 0, a_i} with scale="row"."""

    scale: Scale = 1.0

    def __post_init__(self) -> None:
        check_scale("Ternary", self.scale)

    @property
    def grid(self) -> Grid:
        return Grid(1, 1)


@dataclass(frozen=True)
class Codebook(DiscreteSet):
    """W_ij = a c with c in {-L, ..., L}, L = 2^(bits - 1) - 1: the signed integers of so many bits, without
    the unpaired one.

    bits from 2 (ternary) to 8. scale: fixed, or "row" for one per row.
    """

    bits: int
    scale: Scale = "row"

    def __post_init__(self) -> None:
        if not (isinstance(self.bits, int) and 2 <= self.bits <= 8):  # 8: codes travel and are kept as int8
            raise ProblemError(f"Codebook: expected bits from 2 to 8, found {self.bits!r}; for one bit use "
                               "Binary")
        check_scale("Codebook", self.scale)

    @property
    def grid(self) -> Grid:
        return Grid(1, 2 ** (self.bits - 1) - 1)
