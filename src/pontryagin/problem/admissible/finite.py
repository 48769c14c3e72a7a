"""Sets of matrices whose entries are one of a few numbers."""

from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Bool
from torch import Tensor

from pontryagin.errors import ProblemError
from pontryagin.problem.admissible.sets import Matrix, MatrixSet


@dataclass(frozen=True)
class Finite(MatrixSet):
    """W_ij in {v_1, ..., v_k}: Finite((0, 1)) are switches. values: finite, at least one; kept sorted,
    without repetitions. The grids Binary, Ternary and Codebook can be exported as codes, and have scales for
    rows."""

    values: tuple[float | int, ...]

    def __post_init__(self) -> None:
        if not self.values or not all(isfinite(value) for value in self.values):
            raise ProblemError(f"Finite: expected at least one value, all finite, found {self.values}")
        object.__setattr__(self, "values", tuple(sorted({float(value) for value in self.values})))

    def candidates(self, like: Tensor) -> Tensor:
        """The values, of the dtype and on the device of `like`."""
        return like.new_tensor(self.values)

    def project(self, weight: Matrix) -> Matrix:
        """The nearest value of each entry, the lower of two."""
        values = self.candidates(weight)
        return values[(weight.unsqueeze(-1) - values).abs().argmin(-1)]

    def contains(self, weight: Matrix) -> Bool[Tensor, "*stage"]:
        """Whether every entry is one of the values, bit by bit."""
        return torch.isin(weight, self.candidates(weight)).flatten(-2).all(-1)
