"""Scales of the rows of a discrete set, by least squares in the metric."""

import torch

from pontryagin.maximizer.constrained_quadratic import ConstrainedQuadratic, Matrix
from pontryagin.problem import DiscreteSet
from pontryagin.problem.admissible.grid import short_scale


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
