"""The step over {-1, 0, 1} with a price on every weight that is not 0, set so that few of them are.

H~ = <M, dW> - sum_ij (rho/2 dW_ij^2 + lambda 1[W_ij != 0]) v_j^1/2: of the inputs' variances the root, so
that two weights whose gradients are noise alone are worth alike, whatever their inputs (with v_j itself most
of the few places went to inputs that hardly vary). In units of a row with scale a_i, a weight 0 takes the
sign of M_ij, and another becomes 0, where

    a_i |M_ij| / v_j^1/2 > rho/2 + lambda,        - W_ij M_ij / v_j^1/2 > rho/2 - lambda

rho and lambda are not settings: they are such that the wanted number of weights move, and that of these so
many become 0 as bring the share of the others to the wanted one. Where that is reached, as many leave 0 as
become 0, each time those whose move is worth
most: lambda is the multiplier of a bound on the number of weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pontryagin.maximizer.grid_argmax import Matrix, Pace, sampled


@dataclass(frozen=True)
class PricedArgmax:
    """A step of entries of which the share `density` is to be left."""

    density: float
    exponent: ClassVar[float] = 0.5

    def __call__(self, weight: Matrix, average: Matrix, scale: Tensor, metric: Tensor, pace: Pace
                 ) -> tuple[Matrix, Tensor, Tensor]:
        """The new matrix, how many entries moved, and what is owed to the next step."""
        worth, filled = priced(weight, average, scale, metric)
        leaving, emptied, owed = thresholds(worth, filled, self.density, pace)
        return *moved(weight, average, worth, filled, (leaving, emptied), scale), owed


def priced(weight: Matrix, average: Matrix, scale: Tensor, metric: Tensor) -> tuple[Matrix, Tensor]:
    """What the move of each entry is worth, to its sign's value from 0 and to 0 from elsewhere; and which
    entries are not 0."""
    filled = weight != 0
    return torch.where(filled, -weight * average, average.abs() * scale).mul_(metric), filled


def thresholds(worth: Matrix, filled: Tensor, density: float, pace: Pace) -> tuple[float, float, Tensor]:
    """The worth above which an entry leaves 0, the worth from which on it becomes 0, and the moves owed to
    the next step.

    density: the wanted share of entries that are not 0. Above it more become 0 than leave it, by the excess
    relative to the wanted number, and all moves go there from twice that number on; below it the other way.
    """
    sample, full = sampled(worth, pace), sampled(filled, pace)
    wanted = pace.wanted(sample)
    number = int(wanted)
    if number == 0:
        return float("inf"), float("inf"), wanted
    goal, there = density * sample.numel(), int(full.sum())
    tilt = max(-1.0, min(1.0, (there - goal) / max(goal, 1.0)))
    removed = min(round(number * (1 + tilt) / 2), there)
    added = min(number - removed, sample.numel() - there)
    return _largest(sample[~full], added, added), _largest(sample[full], removed,
                                                           removed - 1), wanted - number


def _largest(worths: Tensor, number: int, place: int) -> float:
    """The worth at that place, from 0, of the largest first; where `number` is all of them, below all."""
    if number == 0:
        return float("inf")
    if number >= len(worths):
        return -float("inf")
    return float(worths.topk(place + 1).values[-1])


def moved(weight: Matrix, average: Matrix, worth: Matrix, filled: Tensor, least: tuple[float, float],
          scale: Tensor) -> tuple[Matrix, Tensor]:
    """The matrix with the entries moved that are worth it (leaving 0, becoming 0), and how many moved.

    At the inputs that never vary every worth is 0: such weights leave together, for nothing is lost with
    them.
    """
    leaving, emptied = ~filled & (worth > least[0]), filled & (worth >= least[1])
    new = torch.where(leaving, average.sign().to(weight.dtype) * scale, weight).masked_fill_(emptied, 0.0)
    return new, leaving.sum() + emptied.sum()


def shares(shapes: Sequence[tuple[int, int]], density: float) -> list[float]:
    """The share of non-zero entries of each of several matrices (rows, inputs), so that all together have the
    share `density`.

    Entries go to a matrix in proportion to rows + inputs, as many as there are to a row and to an input
    wherever they are, and no more than it has (the Erdos-Renyi rule of Mocanu et al. 2018): small matrices
    keep more.
    """
    left, open_to = density * sum(rows * inputs for rows, inputs in shapes), set(range(len(shapes)))
    found = [1.0] * len(shapes)
    while open_to:
        each = left / sum(sum(shapes[n]) for n in open_to)
        full = {n for n in open_to if each * sum(shapes[n]) >= shapes[n][0] * shapes[n][1]}
        if not full:
            for n in open_to:
                found[n] = each * sum(shapes[n]) / (shapes[n][0] * shapes[n][1])
            break
        left -= sum(shapes[n][0] * shapes[n][1] for n in full)
        open_to -= full
    return found
