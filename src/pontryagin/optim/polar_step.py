"""The polar step of a stage that sees many rows: momentum before the argmax, one length for all outputs."""

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.argmax import bias_change, largest_entry, output_change
from pontryagin.affine.metric import FactoredMoment
from pontryagin.affine.polar import polar_argmax
from pontryagin.optim.fading import NOISE_LEVEL_OF_MOMENTUM, floored, long_mean, new_peak, within
from pontryagin.optim.state import StageState

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]
Size = Float[Tensor, " group"]

MOMENTUM = 0.9
"""Of Nesterov: what averages the batches' noise before all singular values are made alike."""
ROWS = 2.0
"""Rows a step must have, relative to the larger of inputs and outputs, for small singular values to be
signal."""
_NOISE = 0.25
"""What Nesterov momentum of 0.9 leaves of gradients that are noise alone, root mean square: 0.27."""
_SIZE_DECAY = 0.98
"""Of the mean squared gradient that momentum is compared with: longer than momentum's own memory of ten."""


def polar_step(state: StageState, gradient: Matrix, bias_gradient: Vector | None, largest: Size,
               metric: FactoredMoment, damping: float, exponent: float, rho_decay: float | None, limit: Size,
               steps: int) -> tuple[Matrix, Vector | None, Size, StageState]:
    """(dW, db, the norms of dW, what is new in the state), scaled to a mean squared change of an output of 1.
    Nesterov momentum before the argmax, bias-corrected.

    largest: the largest entries of the gradients. rho_decay: of the mean squared change; None: not renewed in
    this step, for a polar factor's changes little. limit: of the norm of dW. steps: this one included.

    A polar factor knows nothing of the length of its argument, so its own length is that of the momentum
    beside the gradients that it is made of, where that is less than what momentum leaves of pure noise.
    """
    new = StageState({})
    weight = torch.lerp(state.velocity_weight, torch.ones_like(state.velocity_weight), 1 - MOMENTUM)
    new.velocity, right = _nesterov(state.velocity, gradient, weight)
    new.velocity_weight, size = weight, largest_entry(right)
    if bias_gradient is not None:
        new.bias_velocity, bias_gradient = _nesterov(state.bias_velocity, bias_gradient, weight)
        size = torch.maximum(size, largest_entry(bias_gradient))
        right = torch.baddbmm(right, bias_gradient.unsqueeze(2), state.mean.unsqueeze(1), alpha=-1)
    length = _length(state, new, largest, size, steps)
    change, mean_change = polar_argmax(right, bias_gradient, metric, damping, exponent)
    if rho_decay is not None:
        _renew(state, new, output_change(change, mean_change, metric), rho_decay)
    known = state if rho_decay is None else new
    square = known.square.mean(1) / known.square_weight.clamp_min(torch.finfo(change.dtype).tiny)
    factor = torch.where(square > 0, square.rsqrt() * length, 0.0).to(change.dtype)
    norm = torch.linalg.vector_norm(change, dim=(1, 2)) * factor
    factor = (factor * within(norm, limit))[:, None]
    change = change * factor.unsqueeze(2)
    if mean_change is None:
        return change, None, norm, new
    return change, bias_change(mean_change * factor, change, state.mean), norm, new


def _renew(state: StageState, new: StageState, square: Vector, rho_decay: float) -> None:
    """The running mean of the squared changes of the outputs that a polar step causes; a zero gradient causes
    none to count."""
    square = square.to(state.square.dtype)
    weight = (1 - rho_decay) * (square.sum(1) > 0).to(square.dtype)
    new.square = torch.lerp(state.square, square, weight.unsqueeze(1).expand_as(square))
    new.square_weight = torch.lerp(state.square_weight, torch.ones_like(weight), weight)


def _length(state: StageState, new: StageState, largest: Size, ahead: Size, steps: int) -> Size:
    """The largest entry of the momentum over what momentum leaves of noise of the gradients' size, at most 1;
    the running means of their squared sizes are new."""
    square = largest.to(state.size.dtype).square()
    one = torch.ones_like(state.size_weight)
    new.size = torch.lerp(state.size, square, 1 - _SIZE_DECAY)
    new.size_weight = torch.lerp(state.size_weight, one, 1 - _SIZE_DECAY)
    new.long_size = long_mean(state.long_size, square, steps)
    new.peak = new_peak(state.peak, new.long_size, steps)
    known = floored(new.size / new.size_weight, new.long_size, new.peak, NOISE_LEVEL_OF_MOMENTUM).sqrt()
    return torch.where(known > 0, ahead.to(known.dtype) / (_NOISE * known), 0.0).clamp_max(1)


def _nesterov(velocity: Tensor, gradient: Tensor, weight: Size) -> tuple[Tensor, Tensor]:
    """The new velocity, and what it looks ahead to."""
    velocity = torch.lerp(velocity, gradient, 1 - MOMENTUM)
    return velocity, torch.lerp(gradient, velocity / weight.view(-1, *[1] * (velocity.ndim - 1)), MOMENTUM)
