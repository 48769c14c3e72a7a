"""The variance of each input of a stage, the diagonal of A_c, from streamed sums."""

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
        """Means of x and of x^2 (group, input); starts anew. None without rows."""
        if self._sum is None or self._square is None or not self._count:
            return None
        means = self._sum / self._count, self._square / self._count
        self.__init__()  # type: ignore[misc]
        return means


def variance_of(mean: Tensor, square: Tensor) -> Tensor:
    """The variances of these means."""
    return (square - mean.square()).clamp_min(0)
