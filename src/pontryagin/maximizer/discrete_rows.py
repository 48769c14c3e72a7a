"""Rows of a discrete set: the best of all candidates, and the best scales for codes that are given."""

from itertools import product

import torch

from pontryagin.maximizer.constrained_quadratic import ConstrainedQuadratic, Matrix
from pontryagin.problem import DiscreteSet
from pontryagin.problem.admissible import short_scale


def enumerable(model: ConstrainedQuadratic, limit: int) -> bool:
    """Whether rows, each with few candidates, are independent: no costate penalty, an eliminated bias."""
    theta = model.theta
    if not isinstance(theta, DiscreteSet) or model.costates is not None or model.with_bias:
        return False
    return len(theta.grid.codes) ** model.width <= limit


def enumerated(model: ConstrainedQuadratic) -> Matrix:
    """The best candidate of each row; with a scale per row, the best scale for each of them too.

    f = a <l, c> - a^2/2 (c A c + q |c|^2) - a l1 |c|_1 - l0 |c|_0 up to a constant, l the slope at V = 0.
    A scale of 0 says that none above 0 is best: then another candidate is better, or the row stays.
    """
    theta, like, cost = model.theta, model.origin, model.cost
    assert isinstance(theta, DiscreteSet)
    codes = torch.tensor(list(product(theta.grid.codes, repeat=model.width)), dtype=like.dtype,
                         device=like.device)
    linear = (model.slope + like @ model.inputs) @ codes.mT - cost.absolute * codes.abs().sum(1)
    square = ((codes @ model.inputs) * codes).sum(2).unsqueeze(1) + cost.quadratic * codes.square().sum(1)
    square = square.expand_as(linear)
    if theta.scale == "row":
        best_scale = linear / square.clamp_min(torch.finfo(linear.dtype).tiny)
        best_scale = torch.where((linear > 0) & (square > 0), best_scale, 0.0)
        scale = short_scale(best_scale, theta.grid, linear.dtype)
    else:
        scale = torch.full_like(linear, theta.scale)
    value = (linear - 0.5 * scale * square) * scale - cost.count * (codes != 0).sum(1)
    best = torch.where(scale > 0, value, -torch.inf).argmax(2, keepdim=True)
    return codes[best.squeeze(2)] * scale.gather(2, best)


def fitted_scales(model: ConstrainedQuadratic, theta: DiscreteSet, point: Matrix) -> Matrix:
    """The point with its codes kept and the scales of all rows at their joint optimum, rounded to scales of
    the set.

    With V_i = a_i c_i: K a' = K a + b, b_i = <gradient_i, c_i> - cost, K_ik = [i = k] <c_i A, c_i> + <c_i,
    U(c_k)>. A negative scale turns the signs of its codes; a row without codes, or with a scale that comes
    out as zero, keeps its scale.
    """
    codes, scale = theta.encode(point[..., :model.width])
    codes = codes.to(point.dtype)
    inputs, cost = model.inputs[:, :model.width, :model.width], model.cost
    own = ((codes @ inputs) * codes).sum(2) + cost.quadratic * codes.square().sum(2)
    system = torch.diag_embed(own)
    if model.costates is not None:
        taps = model.form.map.taps
        by_tap = codes.unflatten(2, (-1, taps))
        coupling = model.costates.unflatten(2, (-1, taps)).unflatten(1, (-1, taps))
        system = system + torch.einsum("nict,nitks,nkcs->nik", by_tap, coupling, by_tap)
    slope = (model.gradient(point)[..., :model.width] * codes).sum(2)
    slope = slope - cost.quadratic * scale * codes.square().sum(2) - cost.absolute * codes.abs().sum(2)
    diagonal = system.diagonal(dim1=1, dim2=2)
    floor = torch.finfo(point.dtype).eps * diagonal.amax(1, keepdim=True)
    system = system + torch.diag_embed(torch.where(diagonal > floor, floor, torch.ones_like(diagonal)))
    change = torch.linalg.solve(system, torch.where(diagonal > floor, slope, 0.0).unsqueeze(2)).squeeze(2)
    found = short_scale((scale + change).abs(), theta.grid, point.dtype)
    sign = torch.where(scale + change < 0, -1.0, 1.0)
    valid = (found > 0) & found.isfinite()
    weight = torch.where(valid, sign * found, scale).unsqueeze(2) * codes
    return torch.cat([weight, point[..., model.width:]], 2)
