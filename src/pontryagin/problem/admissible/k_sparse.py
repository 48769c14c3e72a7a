"""A bounded number of non-zero entries in each row."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.problem.admissible.sparse import SparseSet
from pontryagin.problem.errors import ProblemError


@dataclass(frozen=True)
class KSparse(SparseSet):
    """At most k non-zero entries in each row; or `share` of the row's length instead of k, rounded, at least
    1."""

    k: int | None = None
    share: float | int | None = None

    def __post_init__(self) -> None:
        if (self.k is None) == (self.share is None):
            raise ProblemError(f"KSparse: expected either k or share, found k={self.k}, share={self.share}")
        if self.k is not None and not (isinstance(self.k, int) and not isinstance(self.k, bool)
                                       and self.k >= 1):
            raise ProblemError(f"KSparse: expected k >= 1 non-zero entries per row, found {self.k!r}")
        if self.share is not None and not 0 < self.share <= 1:
            raise ProblemError(f"KSparse: expected a share of the row in (0, 1], found {self.share!r}")

    def count(self, inputs: int) -> int:
        """k for rows of this length."""
        return self.k if self.k is not None else max(1, round((self.share or 1.0) * inputs))

    def check(self, rows: int, inputs: int) -> None:
        """k must not exceed the row."""
        if self.count(inputs) > inputs:
            raise ProblemError(f"{self!r}: expected k <= {inputs}, the length of a row, found {self.k}")

    def support(self, worth: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage row input"]:
        """The k entries of greatest worth in each row."""
        places = worth.topk(self.count(worth.shape[-1]), dim=-1).indices
        return torch.zeros_like(worth, dtype=torch.bool).scatter_(-1, places, True)

    def sparse_enough(self, nonzero: Bool[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """At most k in each row."""
        return (nonzero.sum(-1) <= self.count(nonzero.shape[-1])).all(-1)
