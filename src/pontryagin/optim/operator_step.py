"""The step of a stage that sees many rows: the argmax under a bound on the operator norm of the change.

Maximizing <G, dW> + <g, db> where every direction of the inputs, measured in the metric M = (A_c + delta I)^power, may move the
outputs by the same length gives the polar factor O of [(G - g s^T) M^-1, g], and dW = O_x M^-1. Against G M^-2 it treats
all singular directions of the gradient alike, which pays when a batch has many more rows than the stage has inputs or outputs, so
that the small singular values are signal. (The polar step is that of Muon, Jordan et al. 2024, in the metric of the states.)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.optim.metric import Factor, solve
from pontryagin.optim.stage_step import output_change

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]

MOMENTUM = 0.9
ROWS = 2.0
"""Rows a step must have, relative to the larger of inputs and outputs, for small singular values to be signal."""
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def operator_step(state: dict[str, Tensor], gradient: Matrix, bias_gradient: Vector | None, metric: Factor, damping: float,
                  power: float) -> tuple[Matrix, Vector | None]:
    """(dW, db), scaled to a mean squared change of an output of 1. Nesterov momentum before the argmax, bias-corrected.

    The metric enters with half of `power` on either side of the polar factor: (G - g s^T) M^-1 and O_x M^-1 with
    M = (A_c + delta I)^(power / 2), so that the whole scales as the step by rows does.
    """
    state["velocity_weight"].lerp_(torch.ones_like(state["velocity_weight"]), 1 - MOMENTUM)
    gradient = _nesterov(state["velocity"], gradient, state["velocity_weight"])
    right = gradient
    if bias_gradient is not None:
        bias_gradient = _nesterov(state["bias_velocity"], bias_gradient, state["velocity_weight"])
        right = gradient - bias_gradient.unsqueeze(2) * state["mean"].unsqueeze(1)
    joint = solve(metric, right, damping, power / 2)
    if bias_gradient is not None:
        joint = torch.cat([joint, bias_gradient.unsqueeze(2)], 2)
    polar = polar_factor(joint)
    mean_change = None if bias_gradient is None else polar[..., -1]
    change = solve(metric, polar if mean_change is None else polar[..., :-1], damping, power / 2)
    square = output_change(change, mean_change, metric).mean(1)
    scale = (square + torch.finfo(square.dtype).tiny).rsqrt()[:, None]
    change = change * scale.unsqueeze(2)
    if mean_change is None:
        return change, None
    return change, mean_change * scale - (change @ state["mean"].unsqueeze(2)).squeeze(2)


def polar_factor(matrix: Matrix) -> Matrix:
    """About U V^T of matrix = U S V^T: five Newton-Schulz iterations with a quintic; singular values end in about [0.7, 1.2].

    All iterates are functions of the Gram matrix of the shorter side, so for long matrices only that is iterated.
    """
    wide = matrix.shape[1] <= matrix.shape[2]
    x = matrix if wide else matrix.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + torch.finfo(x.dtype).tiny)
    long = x.shape[2] >= 2 * x.shape[1]
    x = _long_iterations(x) if long else _plain_iterations(x)
    return x if wide else x.mT


def _plain_iterations(x: Matrix) -> Matrix:
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _long_iterations(x: Matrix) -> Matrix:
    """x <- S x with S = a + b R + c R^2, R = x x^T: then R <- S R S, and the product of all S is applied once."""
    a, b, c = _QUINTIC
    gram = x @ x.mT
    product = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand_as(gram)
    for number in range(_ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor @ product if number else factor
        if number < _ITERATIONS - 1:
            gram = factor @ (gram @ factor)
    return product @ x


def _nesterov(velocity: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    velocity.lerp_(gradient, 1 - MOMENTUM)
    return torch.lerp(gradient, velocity / weight, MOMENTUM)
