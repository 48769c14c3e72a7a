"""Sets of matrices with few non-zero entries, at places that are free."""

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.problem.admissible.protocol import MatrixSet


class SparseSet(MatrixSet):
    """The number of non-zero entries is bounded; the entries themselves are any real numbers."""

    @abstractmethod
    def support(self, worth: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage row input"]:
        """The admissible places of greatest total worth, where worth >= 0 is what a non-zero entry gains."""

    @abstractmethod
    def sparse_enough(self, nonzero: Bool[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """Whether these places may all be non-zero."""

    def project(self, weight: Float[Tensor, "*stage row input"]) -> Float[Tensor, "*stage row input"]:
        """The largest entries, the others zero (hard threshold)."""
        return torch.where(self.support(weight.square()), weight, 0.0)

    def contains(self, weight: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """Whether enough entries are exactly zero and all are finite."""
        return self.sparse_enough(weight != 0) & weight.isfinite().flatten(-2).all(-1)
