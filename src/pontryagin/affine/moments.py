"""Streamed moments of the inputs of a stage: nothing but means is kept."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class Moments:
    """Of some rows x: s = mean x, the centred second moment A_c as the product A_c B with a block B, and its
    trace.

    mean: (group, input); product: (group, input, column); trace: (group); block B: (group, input, column),
    None for the identity. Of one-hot inputs the product is the diagonal, (group, input), their frequencies.
    count: the number of rows.
    """

    mean: Tensor
    product: Tensor
    trace: Tensor
    block: Tensor | None = None
    count: float = 1.0

    def add_outer(self, vector: Float[Tensor, "group input"], weight: Tensor | float) -> None:
        """A_c <- A_c + weight v v^T, weight a number a group; a diagonal stays as it is."""
        if self.product.ndim == 2:
            return
        right = vector.unsqueeze(1) if self.block is None else vector.unsqueeze(1) @ self.block
        scaled = vector * weight
        self.product.baddbmm_(scaled.unsqueeze(2), right)
        self.trace += (scaled * vector).sum(1)

    def to(self, dtype: torch.dtype) -> "Moments":
        """In another precision."""
        return Moments(self.mean.to(dtype), self.product.to(dtype), self.trace.to(dtype),
                       None if self.block is None else self.block.to(dtype), self.count)


class InputMoments:
    """Sums over the rows seen since the last take(): of x, of x (x^T B) and |x|^2, and their number.

    Rows: (group, position, input). Sums are centred at a fixed point near the mean (that of the first rows),
    so that float32 is enough. block: B, to be set before the first rows; None: the identity, and the product
    is the second moment itself, d x d. With a block that is never formed.
    """

    def __init__(self, block: Tensor | None = None) -> None:
        self.block = block
        self._count = 0
        self._centre: Tensor | None = None
        self._sum: Tensor | None = None
        self._product: Tensor | None = None
        self._trace: Tensor | None = None

    def add(self, rows: Float[Tensor, "group position input"]) -> None:
        """More rows, in float32 or wider."""
        if rows.shape[1] == 0:
            return
        rows = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
        if self._centre is None or self._sum is None or self._product is None or self._trace is None:
            self._centre = rows.mean(1)
            self._sum = torch.zeros_like(self._centre)
            columns = rows.shape[2] if self.block is None else self.block.shape[2]
            self._product = rows.new_zeros(rows.shape[0], rows.shape[2], columns)
            self._trace = rows.new_zeros(rows.shape[0])
        shifted = rows - self._centre.unsqueeze(1)
        self._count += rows.shape[1]
        self._sum += shifted.sum(1)
        self._product.baddbmm_(shifted.mT,
                               shifted if self.block is None else shifted @ self.block.to(shifted.dtype))
        if self.block is not None:
            self._trace += torch.linalg.vector_norm(shifted, dim=(1, 2)).square()

    def take(self) -> Moments | None:
        """The moments; starts anew. None without rows."""
        if self._centre is None or self._sum is None or self._product is None or self._trace is None:
            return None
        offset = self._sum / self._count
        if self.block is None:
            self._trace = self._product.diagonal(dim1=-2, dim2=-1).sum(-1)
        block = None if self.block is None else self.block.to(self._product.dtype)
        taken = Moments(self._centre + offset, self._product.div_(self._count), self._trace / self._count,
                        block, float(self._count))
        taken.add_outer(offset, -1.0)
        self.__init__(self.block)  # type: ignore[misc]
        return taken


class IndexMoments:
    """The same for one-hot inputs given as indices (1, position, 1): frequencies (1, input)."""

    def __init__(self, size: int, dtype: torch.dtype = torch.float32) -> None:
        self._size, self._dtype = size, dtype
        self._counts: Tensor | None = None

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """More indices."""
        if rows.shape[1] == 0:
            return
        counts = torch.bincount(rows.flatten(), minlength=self._size).to(self._dtype).unsqueeze(0)
        self._counts = counts if self._counts is None else self._counts + counts

    def take(self) -> Moments | None:
        """Zero mean (an embedding has no bias to absorb one) and the frequencies; starts anew."""
        if self._counts is None:
            return None
        counts, self._counts = self._counts, None
        return Moments(torch.zeros_like(counts), counts / counts.sum(), torch.ones_like(counts[:, 0]),
                       count=float(counts.sum()))
