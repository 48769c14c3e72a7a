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

    A row holds the taps of a channel beside each other, as a convolution's flattened weight: entry channel *
    taps + tap. taps: 1 for Linear. Wherever a set is given for a parameter, its shape tells the taps
    (`within`), and so does the weight that a matrix is a view of, as weight.flatten(1) is; a matrix by itself
    needs them: TwoFourSparse(taps=9) for 3 x 3 kernels. Sparse tensor cores take this order, with channels
    last.
    """

    taps: int | None = None

    def __post_init__(self) -> None:
        if self.taps is not None and not (isinstance(self.taps, int) and self.taps >= 1):
            raise ProblemError("TwoFourSparse: expected taps >= 1, the entries of a kernel, found "
                               f"{self.taps!r}")

    def within(self, rows: Rows) -> "TwoFourSparse":
        """With the taps of a weight."""
        return replace(self, taps=rows.taps)

    def check(self, rows: int, inputs: int) -> None:
        """Channels fall into groups of four."""
        taps = self.taps or 1
        if inputs % (4 * taps):
            raise ProblemError("TwoFourSparse: expected rows whose number of input channels is a multiple "
                               f"of 4, found {inputs // taps}"
                               + ("" if taps == 1 else f" at each of {taps} taps"))

    def project(self, weight: Float[Tensor, "*stage row input"]) -> Float[Tensor, "*stage row input"]:
        """The largest entries, the others zero (hard threshold)."""
        return SparseSet.project(self._of(weight), weight)

    def contains(self, weight: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """Whether enough entries are exactly zero and all are finite."""
        return SparseSet.contains(self._of(weight), weight)

    def _of(self, matrix: Tensor) -> "TwoFourSparse":
        """With the taps of the weight that a matrix is a view of, where they are not given."""
        whole = matrix._base
        if self.taps is not None or whole is None or whole.ndim < 3 or (len(whole),
                                                                        whole[0].numel()) != matrix.shape:
            return self
        return replace(self, taps=Rows(whole.shape).taps)

    def support(self, worth: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage row input"]:
        """The two entries of greatest worth in each group."""
        groups = self._groups(worth)
        places = groups.topk(2, dim=-2).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(-2, places, True).flatten(-3)

    def sparse_enough(self, nonzero: Bool[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """At most two in each group."""
        return (self._groups(nonzero).sum(-2) <= 2).flatten(-3).all(-1)

    def _groups(self, matrix: Tensor) -> Tensor:  # (*stage, row, group, channel of the group, tap)
        return matrix.unflatten(-1, (-1, 4, self.taps or 1))
