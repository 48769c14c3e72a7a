"""The global argmax over a discrete set, by trying all candidates of each row."""

from itertools import product

import torch
from torch import Tensor

from pontryagin.maximizer.constrained_quadratic import ConstrainedQuadratic, Matrix
from pontryagin.problem import DiscreteSet
from pontryagin.problem.admissible.grid import short_scale


def enumerable(model: ConstrainedQuadratic, limit: int) -> bool:
    """Whether rows are independent, and each has few candidates: a discrete set, no costate penalty, an
    eliminated bias."""
    theta = model.theta
    if not isinstance(theta, DiscreteSet) or model.costates is not None or model.with_bias:
        return False
    return len(theta.grid.codes) ** model.width <= limit


def enumerated(model: ConstrainedQuadratic) -> Matrix:
    """The best candidate of each row; with a scale per row, the best scale for each of them too.

    f = a <l, c> - a^2/2 (c A c + q |c|^2) - a l1 |c|_1 - l0 |c|_0 up to a constant, l the slope at V = 0.
    """
    theta = model.theta
    assert isinstance(theta, DiscreteSet)
    like = model.origin
    codes = torch.tensor(list(product(theta.grid.codes, repeat=model.width)), dtype=like.dtype,
                         device=like.device)
    linear = (model.slope + model.origin @ model.inputs) @ codes.mT - model.cost.absolute * codes.abs().sum(1)
    square = ((codes @ model.inputs)
              * codes).sum(2).unsqueeze(1) + model.cost.quadratic * codes.square().sum(1)
    scale = _scales(theta, linear, square.expand_as(linear))
    value = (linear - 0.5 * scale * square) * scale - model.cost.count * (codes != 0).sum(1)
    best = torch.where(scale > 0, value, -torch.inf).argmax(2, keepdim=True)
    return codes[best.squeeze(2)] * scale.gather(2, best)


def _scales(theta: DiscreteSet, linear: Tensor, square: Tensor) -> Tensor:
    """The scale of each candidate; 0 where none above 0 is best (then another candidate is better, or the row
    stays)."""
    if theta.scale != "row":
        return torch.full_like(linear, theta.scale)
    scale = torch.where((linear > 0) & (square > 0),
                        linear / square.clamp_min(torch.finfo(linear.dtype).tiny), 0.0)
    return short_scale(scale, theta.grid, linear.dtype)
