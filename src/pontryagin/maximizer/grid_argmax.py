"""The step over a grid of codes: the argmax of <M, dW> - rho/2 sum_ij dW_ij^2 a_ij, rho set by how many
entries may move.

M is the running mean of the Hamiltonian's gradient G, W the current matrix a_i c_ij. With entries moving by
one code in the
direction of M_ij, the entry moves where the gain outweighs the penalty: 2 |M_ij| > rho |dW_ij| v_j, v_j the
variance of input j. In units of the row (dW_ij relative to its scale a_i, as rho_i is per output) the worth
of a move is

    worth_ij = a_i |M_ij| / (v_j + damping mean v)^exponent

and rho is the quantile of the worths that lets the wanted share of entries move.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.rows import chosen
from pontryagin.problem.admissible import Grid

Matrix = Float[Tensor, "row input"]
_SAMPLE = 1 << 17
"""So many worths tell a quantile."""
_STRIDE = 7919
"""How far the sample moves on from step to step: a prime, so that it comes to all entries."""


@dataclass(frozen=True)
class Pace:
    """share: of all entries, to be moved in a step; owed: moves of earlier steps, for with few entries the
    wanted number is less than one a step; offset: a number that differs from step to step, which entries are
    sampled."""

    share: float
    owed: Tensor
    offset: int

    def wanted(self, sample: Tensor) -> Tensor:
        """Moves among these entries."""
        return self.owed + self.share * sample.numel()


@runtime_checkable
class DiscreteArgmax(Protocol):
    """An elementwise argmax over a grid. exponent: of the inputs' variances in its metric."""

    exponent: ClassVar[float]

    def __call__(self, weight: Matrix, average: Matrix, scale: Tensor, metric: Tensor, pace: Pace
                 ) -> tuple[Matrix, Tensor, Tensor]:
        """The new matrix, how many entries moved, and what is owed to the next step. metric: (v +
        ...)^-exponent."""


@dataclass(frozen=True)
class GridArgmax:
    """A step on any grid without a price."""

    grid: Grid
    exponent: ClassVar[float] = 1.0

    def __call__(self, weight: Matrix, average: Matrix, scale: Tensor, metric: Tensor, pace: Pace
                 ) -> tuple[Matrix, Tensor, Tensor]:
        """The new matrix, how many entries moved, and what is owed to the next step."""
        worth = worths(weight, average, scale, metric, self.grid)
        least, owed = quantile(worth, pace)
        return *moved(weight, average, worth, least, scale, self.grid), owed


def sampled(values: Tensor, pace: Pace) -> Tensor:
    """Some of the entries, at irregular distances so that they are of all rows and inputs, others in every
    step."""
    count = values.numel()
    if count <= _SAMPLE:
        return values.flatten()
    places = (chosen(count, _SAMPLE) + pace.offset * _STRIDE) % count
    return values.flatten()[places.to(values.device)]


def worths(weight: Matrix, average: Matrix, scale: Tensor, metric: Tensor, grid: Grid) -> Matrix:
    """What a move of each entry along its average gradient is worth; at most 0 where the grid ends. metric:
    (v + ...)^-exponent."""
    if grid.limit == 1 and grid.step == 2:
        return (weight * average).mul_(-metric)
    inside = weight * average.sign() < (grid.limit - 0.5) * scale
    return torch.where(inside, average.abs(), 0.0).mul_(metric * scale)


def quantile(worth: Matrix, pace: Pace) -> tuple[float, Tensor]:
    """The worth that about the wanted share of the entries exceed, and what is owed to the next step.
    Infinite where none is to move; never negative."""
    sample = sampled(worth, pace)
    wanted = pace.wanted(sample)
    number = min(int(wanted), sample.numel())
    if number == 0:
        return float("inf"), wanted
    return max(float(sample.topk(number + 1 if number < sample.numel() else number).values[-1]),
               0.0), wanted - number


def moved(weight: Matrix, average: Matrix, worth: Matrix, least: float, scale: Tensor,
          grid: Grid) -> tuple[Matrix, Tensor]:
    """The matrix with every entry worth more than `least` moved by one code, exactly on the grid, and how
    many moved."""
    going = worth > least
    if grid.limit == 1 and grid.step == 2:
        return torch.where(going, -weight, weight), going.sum()
    codes = (weight / scale).round()
    codes = (codes + torch.where(going, grid.step * average.sign(), 0.0).to(weight.dtype)).clamp(-grid.limit,
                                                                                                 grid.limit)
    return torch.where(going, codes * scale, weight), going.sum()
