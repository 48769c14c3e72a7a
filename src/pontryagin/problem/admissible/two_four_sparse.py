"""Two of four: the pattern of sparsity that hardware multiplies."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.problem.admissible.rows import Rows
from pontryagin.problem.admissible.sparse import SparseSet
from pontryagin.problem.errors import ProblemError


@dataclass(frozen=True)
class TwoFourSparse(SparseSet):
    """Of input channels 4 q, ..., 4 q + 3 at one tap of a row at most two are non-zero, for every q and tap.

    A row holds the taps of a channel beside each other, as a convolution's flattened weight: entry channel * taps + tap. taps: 1
    for Linear. Wherever a set is given for a parameter, its shape tells the taps (`within`); a bare matrix needs them:
    TwoFourSparse(taps=9) for 3 x 3 kernels. Sparse tensor cores take this order, with channels last.
    """

    taps: int = 1

    def __post_init__(self) -> None:
        if not (isinstance(self.taps, int) and self.taps >= 1):
            raise ProblemError(f"TwoFourSparse: expected taps >= 1, the entries of a kernel, found {self.taps!r}")

    def within(self, rows: Rows) -> "TwoFourSparse":
        """With the taps of a weight."""
        return replace(self, taps=rows.taps)

    def check(self, rows: int, inputs: int) -> None:
        """Channels fall into groups of four."""
        if inputs % (4 * self.taps):
            raise ProblemError(f"TwoFourSparse: expected rows whose number of input channels is a multiple of 4, found "
                               f"{inputs // self.taps}" + ("" if self.taps == 1 else f" at each of {self.taps} taps"))

    def support(self, worth: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage row input"]:
        """The two entries of greatest worth in each group."""
        groups = self._groups(worth)
        places = groups.topk(2, dim=-2).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(-2, places, True).flatten(-3)

    def sparse_enough(self, nonzero: Bool[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """At most two in each group."""
        return (self._groups(nonzero).sum(-2) <= 2).flatten(-3).all(-1)

    def _groups(self, matrix: Tensor) -> Tensor:  # (*stage, row, group, channel of the group, tap)
        return matrix.unflatten(-1, (-1, 4, self.taps))
