"""Two of four: the pattern of sparsity that hardware multiplies."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.problem.admissible.sparse import SparseSet
from pontryagin.problem.errors import ProblemError


@dataclass(frozen=True)
class TwoFourSparse(SparseSet):
    """Of the entries 4 q, ..., 4 q + 3 of a row at most two are non-zero, for every q."""

    def check(self, rows: int, inputs: int) -> None:
        """Rows fall into groups of four."""
        if inputs % 4:
            raise ProblemError(f"{self!r}: expected rows whose length is a multiple of 4, found {inputs}")

    def support(self, worth: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage row input"]:
        """The two entries of greatest worth in each group."""
        groups = worth.unflatten(-1, (-1, 4))
        places = groups.topk(2, dim=-1).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, places, True).flatten(-2)

    def sparse_enough(self, nonzero: Bool[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """At most two in each group."""
        return (nonzero.unflatten(-1, (-1, 4)).sum(-1) <= 2).flatten(-2).all(-1)
