"""The Gram matrix of a stage's inputs: its conditioning, and the metric of the argmax."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pontryagin.affine import AffineMap, Change, Diagonal, Factor, IndexMoments, InputMoments, argmax
from pontryagin.affine.metric import factorize, factorize_rows
from pontryagin.affine.precision import wide
from pontryagin.affine.rows import chosen, thinned

_EXACT = 512
"""Up to so many inputs A is summed whole; beyond, where its eigenvectors would take long, a sample of rows
stands for it."""
_ROWS, _KEPT = 4096, 256
"""Rows that enter A at most, eight for each of the inputs; and rows that stand for it, half as many as
inputs."""


@dataclass(frozen=True, eq=False)
class Gram:
    """A_c = mean (x - s)(x - s)^T over rows, or A = mean x x^T and s = 0 for a stage without bias.

    mean: s (group, input). metric: A_c, factorized. damping: relative to mean(diag A_c) of each group. rows:
    how many entered.
    """

    mean: Tensor
    metric: Factor | Diagonal
    damping: float
    rows: int

    def argmax(self, gradient: Change) -> tuple[Change, float]:
        """(dW, db) for rho = 1 from (G, g), and mean |dW x + db|^2 over rows."""
        weight, bias, square = argmax(gradient.weight.clone(), gradient.bias, self.mean, self.metric,
                                      self.damping, 1.0)
        return Change(weight, bias), square.sum().item()

    @property
    def inputs(self) -> int:
        """Of a group."""
        return self.mean.shape[1]

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue of A + delta I, the worst of the groups."""
        values = self.metric.values
        delta = self.damping * values.sum(1) / self.inputs
        smallest = values.amin(1) if values.shape[1] == self.inputs else torch.zeros_like(delta)
        ratio = (values.amax(1) + delta) / (smallest + delta)
        return ratio.nan_to_num(1.0).max().item()  # constant inputs: A = 0

    @property
    def effective_rank(self) -> float:
        """tr(A)^2 / tr(A^2), from 1 to the number of inputs; the mean over groups."""
        values = self.metric.values
        squares = values.square().sum(1)
        return torch.where(squares > 0, values.sum(1).square() / squares, 0.0).mean().item()


class GramRows:
    """Streams the rows of a stage, an equal share of them from every batch."""

    def __init__(self, layer: AffineMap, weight: Tensor, batches: int) -> None:
        self.layer, self.has_bias = layer, layer.bias is not None
        self.whole = layer.one_hot or layer.matrix(weight).shape[2] <= _EXACT
        self._share = max((_ROWS if self.whole else _KEPT) // batches, 8)
        self._moments = IndexMoments(weight.shape[0], wide(weight.dtype)) if layer.one_hot else InputMoments()
        self._kept: list[Tensor] = []
        self._rows = 0

    def add(self, x: Tensor) -> None:
        """The inputs of a call, thinned at irregular places: whole samples first, then rows."""
        rows = self.layer.rows(thinned(x, max(self._share // 4, 8)) if x.ndim else x)
        if not self.layer.one_hot and rows.shape[1] > self._share:
            rows = rows.index_select(1, chosen(rows.shape[1], self._share).to(rows.device))
        self._rows += rows.shape[1]
        if self.whole:
            self._moments.add(rows)
        else:
            self._kept.append(rows.to(wide(rows.dtype)))

    def gram(self, damping: float) -> Gram | None:
        """What the rows make; None without rows."""
        if not self._rows:
            return None
        if not self.whole:
            rows = torch.cat(self._kept, 1)
            self._kept.clear()
            mean = rows.mean(1) if self.has_bias else torch.zeros_like(rows[:, 0])
            return Gram(mean, factorize_rows(rows - mean.unsqueeze(1)), damping, self._rows)
        taken = self._moments.take()
        assert taken is not None
        mean, moment = taken.mean, taken.product
        if moment.ndim == 2:
            return Gram(mean, Diagonal(moment), damping, self._rows)
        if not self.has_bias:
            moment, mean = moment + mean.unsqueeze(2) * mean.unsqueeze(1), torch.zeros_like(mean)
        return Gram(mean, factorize(moment), damping, self._rows)
