"""Sets of matrices whose entries are integer codes times a scale."""

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.problem.admissible.grid import Grid, Scale, best_scale
from pontryagin.problem.admissible.protocol import MatrixSet
from pontryagin.problem.errors import ProblemError


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

    def project(self, weight: Float[Tensor, "*stage row input"]) -> Float[Tensor, "*stage row input"]:
        """The nearest codes, and with a scale per row the scale that goes with them (a global minimum over
        both).

        ProblemError for a row of zeros when 0 is no code and its scale is free: no scale > 0 is nearest.
        """
        if self.scale != "row":
            return self.grid.nearest(weight / self.scale) * self.scale
        rows = weight.reshape(-1, weight.shape[-1])
        codes, scales = best_scale(rows, self.grid)
        if 0 not in self.grid.codes and not (scales > 0).all():
            raise ProblemError(f"{self!r}: row {int((~(scales > 0)).nonzero()[0, 0])} holds zeros only (or "
                               "NaN), so no scale > 0 is nearest to it; start from other weights, or give a "
                               "fixed scale")
        nearest = (codes * scales.unsqueeze(1)).view(weight.shape)
        return torch.where(self._inside(weight).unsqueeze(-1), weight, nearest)

    def contains(self, weight: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """Whether every entry equals a code times its scale, bit by bit."""
        return self._inside(weight).all(-1)

    def encode(self, weight: Float[Tensor, "*stage row input"]) -> tuple[Tensor, Float[Tensor, "*stage row"]]:
        """Codes (int8) and scales with codes * scales = W exactly. ProblemError when W lies outside the
        set."""
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
