"""Sets of matrices with few non-zero entries, at places that are free."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from pontryagin.errors import ProblemError
from pontryagin.problem.admissible.rows import Rows
from pontryagin.problem.admissible.sets import Matrix, MatrixSet

Places = Bool[Tensor, "*stage row input"]


class SparseSet(MatrixSet):
    """The number of non-zero entries is bounded; the entries themselves are any real numbers."""

    @abstractmethod
    def support(self, worth: Matrix) -> Places:
        """The admissible places of greatest total worth, where worth >= 0 is what a non-zero entry gains."""

    @abstractmethod
    def sparse_enough(self, nonzero: Places) -> Bool[Tensor, "*stage"]:
        """Whether these places may all be non-zero."""

    def project(self, weight: Matrix) -> Matrix:
        """The largest entries, the others zero (hard threshold)."""
        return torch.where(self.support(weight.square()), weight, 0.0)

    def contains(self, weight: Matrix) -> Bool[Tensor, "*stage"]:
        """Whether enough entries are exactly zero and all are finite."""
        return self.sparse_enough(weight != 0) & weight.isfinite().flatten(-2).all(-1)


@dataclass(frozen=True)
class KSparse(SparseSet):
    """At most k non-zero entries in each row; or `share` of its length instead of k, rounded, at least 1."""

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
        if self.count(inputs) > inputs:
            raise ProblemError(f"{self!r}: expected k <= {inputs}, the length of a row, found {self.k}")

    def support(self, worth: Matrix) -> Places:
        places = worth.topk(self.count(worth.shape[-1]), dim=-1).indices
        return torch.zeros_like(worth, dtype=torch.bool).scatter_(-1, places, True)

    def sparse_enough(self, nonzero: Places) -> Bool[Tensor, "*stage"]:
        return (nonzero.sum(-1) <= self.count(nonzero.shape[-1])).all(-1)


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
        return replace(self, taps=rows.taps)

    def check(self, rows: int, inputs: int) -> None:
        taps = self.taps or 1
        if inputs % (4 * taps):
            raise ProblemError("TwoFourSparse: expected rows whose number of input channels is a multiple "
                               f"of 4, found {inputs // taps}"
                               + ("" if taps == 1 else f" at each of {taps} taps"))

    def project(self, weight: Matrix) -> Matrix:
        return SparseSet.project(self._of(weight), weight)

    def contains(self, weight: Matrix) -> Bool[Tensor, "*stage"]:
        return SparseSet.contains(self._of(weight), weight)

    def _of(self, matrix: Tensor) -> "TwoFourSparse":
        """With the taps of the weight that a matrix is a view of, where they are not given."""
        whole = matrix._base
        if self.taps is not None or whole is None or whole.ndim < 3:
            return self
        return self.within(Rows(whole.shape)) if Rows(whole.shape).size == matrix.shape else self

    def support(self, worth: Matrix) -> Places:
        """The two entries of greatest worth in each group."""
        groups = self._groups(worth)
        places = groups.topk(2, dim=-2).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(-2, places, True).flatten(-3)

    def sparse_enough(self, nonzero: Places) -> Bool[Tensor, "*stage"]:
        return (self._groups(nonzero).sum(-2) <= 2).flatten(-3).all(-1)

    def _groups(self, matrix: Tensor) -> Tensor:  # (*stage, row, group, channel of the group, tap)
        return matrix.unflatten(-1, (-1, 4, self.taps or 1))
