"""Streamed moments of the inputs of a stage: nothing but means is kept."""

import torch
from jaxtyping import Float
from torch import Tensor


class InputMoments:
    """Sums over the rows seen since the last take(): of x, of x x^T, and their number. Rows: (group, position, input).

    Sums are centred at a fixed point near the mean (that of the first rows), so that float32 is enough.
    """

    def __init__(self) -> None:
        self._count = 0
        self._centre: Tensor | None = None
        self._sum: Tensor | None = None
        self._square: Tensor | None = None

    @torch.no_grad()
    def add(self, rows: Float[Tensor, "group position input"]) -> None:
        """More rows, in float32 or wider."""
        if rows.shape[1] == 0:
            return
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        if self._centre is None or self._sum is None or self._square is None:
            self._centre = rows.mean(1)
            self._sum = torch.zeros_like(self._centre)
            self._square = rows.new_zeros(rows.shape[0], rows.shape[2], rows.shape[2])
        shifted = rows - self._centre.unsqueeze(1)
        self._count += rows.shape[1]
        self._sum += shifted.sum(1)
        self._square.baddbmm_(shifted.mT, shifted)

    def take(self) -> tuple[Tensor, Tensor] | None:
        """Mean s (group, input) and centred second moment A_c (group, input, input); starts anew. None without rows."""
        if self._centre is None or self._sum is None or self._square is None:
            return None
        offset = self._sum / self._count
        mean, moment = self._centre + offset, self._square.div_(self._count)
        self.__init__()  # type: ignore[misc]
        return mean, moment.baddbmm_(offset.unsqueeze(2), offset.unsqueeze(1), alpha=-1)


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

    def take(self) -> tuple[Tensor, Tensor] | None:
        """Zero mean (an embedding has no bias to absorb one) and the frequencies; starts anew."""
        if self._counts is None:
            return None
        counts, self._counts = self._counts, None
        return torch.zeros_like(counts), counts / counts.sum()
