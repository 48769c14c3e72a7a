"""The length of a step by rows: rho per output, from what the argmax changes; momentum after the solve."""

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.optim.fading import floored, long_mean, new_peak, unrisen
from pontryagin.optim.state import StageState

Vector = Float[Tensor, "group output"]

_LARGEST = 1e37
"""Of a scale, a float32 later: where all gradients have been tiny, the next may be 0 and is to stay it."""
_SILENT = 0.01
"""Of the mean over outputs, which keeps rho of silent ones from vanishing; of a single output 1e-6 of
itself."""


def outputs_scale(state: StageState, square: Vector, unit: Tensor | None, rho_decay: float, steps: int
                  ) -> tuple[Vector, StageState]:
    """(1 / rho_i, the new running means): rho_i = sqrt of the running mean of the squared changes of output
    i.

    square: of the changes that the gradient divided by `unit` (None: 1) causes; the scale is for these
    changes. So every output moves by about 1 (root mean square over samples) in a step before the factor lr,
    whatever the gradient's scale; by less where gradients fade (fading.py). Where no gradient has ever come,
    0.
    """
    square = square.to(state.square.dtype)
    if unit is not None:
        unit = unit.unsqueeze(1)
        square = square.mul_(unit).mul_(unit)
    new = StageState({})
    new.square = torch.lerp(state.square, square, 1 - rho_decay)
    new.square_weight = state.square_weight * rho_decay + (1 - rho_decay)
    new.long_square = long_mean(state.long_square, square, steps)
    long = new.long_square.mean(1)
    new.peak = new_peak(state.peak, long, steps)
    mean_square = unrisen(new.square / new.square_weight.unsqueeze(1), square, long, new.peak)
    mean_square = floored(mean_square, new.long_square, new.peak.unsqueeze(1))
    known = mean_square.add_(mean_square.mean(1, keepdim=True),
                             alpha=_SILENT if mean_square.shape[1] > 1 else 1e-6)
    scale = torch.where(known > 0, known.rsqrt(), 0.0)
    return (scale if unit is None else scale.mul_(unit)).clamp_max(_LARGEST), new


def nesterov(velocity: Tensor, step: Tensor, momentum: float) -> Tensor:
    """v <- m v + (1 - m) d; returns m v + (1 - m) d with the new v, in the place of d."""
    velocity.lerp_(step, 1 - momentum)
    return step.lerp_(velocity, momentum)
