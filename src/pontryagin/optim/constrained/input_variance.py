"""The variance of each input of a stage, streamed: the diagonal of A_c alone."""

import torch
from jaxtyping import Float
from torch import Tensor


class InputVariance:
    """Sums of x and x^2 over the rows seen since the last take(). Rows: (group, position, input)."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | None = None
        self._square: Tensor | None = None

    @torch.no_grad()
    def add(self, rows: Float[Tensor, "group position input"]) -> None:
        """More rows."""
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        total, square = rows.sum(1), rows.square().sum(1)
        self._count += rows.shape[1]
        self._sum = total if self._sum is None else self._sum + total
        self._square = square if self._square is None else self._square + square

    def take(self) -> tuple[Tensor, Tensor] | None:
        """Mean and variance (group, input); starts anew. None without rows."""
        if self._sum is None or self._square is None or not self._count:
            return None
        mean = self._sum / self._count
        variance = (self._square / self._count - mean.square()).clamp_min(0)
        self.__init__()  # type: ignore[misc]
        return mean, variance
