"""The Gram matrix of a stage's inputs: its conditioning, and the metric of the argmax."""

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.optim.layers import Layer
from pontryagin.optim.moments import IndexMoments, InputMoments
from pontryagin.optim.precision import wide
from pontryagin.optim.thinning import chosen, thinned

_EXACT = 512
"""Up to so many inputs A is summed whole; beyond, a sample of rows stands for it."""
_ROWS, _KEPT = 4096, 256
"""Rows that enter A at most, and rows that stand for it."""

Matrix = Float[Tensor, "group output input"]


class Gram:
    """A_c = mean (x - s)(x - s)^T over rows, as Q diag(values) Q^T; A = mean x x^T and s = 0 for a stage
    without bias.

    mean: s (group, input). values: (group, rank). basis: Q (group, input, rank), None when A is diagonal
    (indices).
    delta: the shift that damps A, damping * mean(diag A) per group. rows: how many entered.
    """

    def __init__(self, mean: Tensor, values: Tensor, basis: Tensor | None, damping: float, rows: int) -> None:
        self.mean, self.values, self.basis, self.rows = mean, values.clamp_min(0), basis, rows
        self.inputs = mean.shape[1]
        self.delta = damping * self.values.sum(1) / self.inputs

    def solve(self, right: Matrix) -> Matrix:
        """Right (A + delta I)^-1; 0 for a group whose inputs are constant (A = 0)."""
        inverse = _inverse(self.values + self.delta[:, None])
        if self.basis is None:
            return right * inverse.unsqueeze(1)
        outside = _inverse(self.delta)[:, None]
        if self.basis.shape[2] == self.inputs:
            return (right @ self.basis * inverse.unsqueeze(1)) @ self.basis.mT
        return right * outside.unsqueeze(1) + (right @ self.basis
                                               * (inverse - outside).unsqueeze(1)) @ self.basis.mT

    def inner(self, right: Matrix) -> float:
        """<Right, Right (A + delta I)^-1>."""
        inverse = _inverse(self.values + self.delta[:, None]).unsqueeze(1)
        if self.basis is None:
            return (right.square() * inverse).sum().item()
        inside = (right @ self.basis).square()
        if self.basis.shape[2] == self.inputs:
            return (inside * inverse).sum().item()
        outside = _inverse(self.delta)[:, None, None]
        return ((right.square().sum(2, keepdim=True) * outside).sum()
                + (inside * (inverse - outside)).sum()).item()

    def squared_change(self, change: Matrix) -> float:
        """mean |dW (x - s)|^2 over rows, summed over groups: tr(dW A dW^T)."""
        rotated = change if self.basis is None else change @ self.basis
        return (rotated.square() * self.values.unsqueeze(1)).sum().item()

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue of A + delta I, the worst of the groups."""
        smallest = self.values.amin(1) if self.values.shape[1] == self.inputs else torch.zeros_like(self.delta)
        ratio = (self.values.amax(1) + self.delta) / (smallest + self.delta)
        return ratio.nan_to_num(1.0).max().item()  # constant inputs: A = 0

    @property
    def effective_rank(self) -> float:
        """tr(A)^2 / tr(A^2), from 1 to the number of inputs; the mean over groups."""
        squares = self.values.square().sum(1)
        return torch.where(squares > 0, self.values.sum(1).square() / squares, 0.0).mean().item()


class GramRows:
    """Streams the rows of a stage, an equal share of them from every batch."""

    def __init__(self, layer: Layer, weight: Tensor, batches: int) -> None:
        self.layer, self.has_bias = layer, layer.bias is not None
        self.inputs = layer.matrix(weight).shape[2]
        self.whole = layer.one_hot or self.inputs <= _EXACT
        self._share = max((_ROWS if self.whole else _KEPT) // batches, 8)
        self._moments = IndexMoments(weight.shape[0], wide(weight.dtype)) if layer.one_hot else InputMoments()
        self._kept: list[Tensor] = []
        self._rows = 0

    def add(self, x: Tensor) -> None:
        """The inputs of a call, thinned at irregular places: whole samples first, then rows."""
        share = max(self._share // 4, 8)
        rows = self.layer.rows(thinned(x, share) if x.ndim else x)
        if not self.layer.one_hot and rows.shape[1] > self._share:
            rows = rows.index_select(1, chosen(rows.shape[1], self._share).to(rows.device))
        self._rows += rows.shape[1]
        if self.whole:
            self._moments.add(rows)
        else:
            self._kept.append(rows.to(wide(rows.dtype)))

    def gram(self, damping: float) -> Gram | None:
        """What the rows make; None without rows."""
        if not self.whole:
            return _of_rows(self._kept, self.has_bias, damping, self._rows)
        taken = self._moments.take()
        if taken is None:
            return None
        mean, moment = taken.mean, taken.product
        if moment.ndim == 2:
            return Gram(mean, moment, None, damping, self._rows)
        if not self.has_bias:
            moment, mean = moment + mean.unsqueeze(2) * mean.unsqueeze(1), torch.zeros_like(mean)
        values, basis = torch.linalg.eigh(moment.double())
        return Gram(mean, values.to(moment.dtype), basis.to(moment.dtype), damping, self._rows)


def _of_rows(kept: list[Tensor], has_bias: bool, damping: float, count: int) -> Gram | None:
    """By the eigenvectors of the small matrix X X^T / rows: A = X^T X / rows has the same eigenvalues."""
    if not kept:
        return None
    rows = torch.cat(kept, 1)
    kept.clear()
    mean = rows.mean(1) if has_bias else torch.zeros_like(rows[:, 0])
    rows = rows - mean.unsqueeze(1)
    values, left = torch.linalg.eigh((rows @ rows.mT).double() / rows.shape[1])
    known = values > torch.finfo(rows.dtype).eps * rows.shape[1] * values[:, -1:]
    scale = torch.where(known, values * rows.shape[1], torch.inf).rsqrt()
    basis = rows.mT @ (left * scale.unsqueeze(1)).to(rows.dtype)
    return Gram(mean, torch.where(known, values, 0.0).to(rows.dtype), basis, damping, count)


def _inverse(values: Tensor) -> Tensor:
    return torch.where(values > 0, 1 / values, 0.0)
