"""Rows on the unit sphere."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.problem.admissible.protocol import MatrixSet
from pontryagin.problem.errors import ProblemError


@dataclass(frozen=True)
class UnitNormRows(MatrixSet):
    """sum_j W_ij^2 = 1 for every row, to rounding: |norm - 1| <= eps * (4 + sqrt(inputs)) in the dtype of
    W."""

    def project(self, weight: Float[Tensor, "*stage row input"]) -> Float[Tensor, "*stage row input"]:
        """Every row divided by its norm. ProblemError for a row of zeros: every point of the sphere is as
        near."""
        norm = torch.linalg.vector_norm(weight, dim=-1, keepdim=True)
        if not (norm > 0).all():
            raise ProblemError("UnitNormRows: a row of zeros (or NaN) has no nearest point of norm 1; start "
                               "from other weights")
        once = weight / norm
        return once / torch.linalg.vector_norm(once, dim=-1, keepdim=True)

    def contains(self, weight: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """Whether all norms are 1 to rounding."""
        norm = torch.linalg.vector_norm(weight.double(), dim=-1)
        return ((norm - 1).abs() <= torch.finfo(weight.dtype).eps * (4 + weight.shape[-1] ** 0.5)).all(-1)
