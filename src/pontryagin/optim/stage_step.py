"""The step of affine stages: the argmax in their metric, rho per output, momentum after the solve."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.optim.fading import floored, long_mean, new_peak, unrisen
from pontryagin.optim.metric import Metric

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]

_LARGEST = 1e37
"""Of a scale, a float32 later: where all gradients have been tiny, the next may be 0 and is to stay it."""


def argmax(gradient: Matrix, bias_gradient: Vector | None, mean: Tensor, metric: Metric, damping: float,
           power: float) -> tuple[Matrix, Vector | None, Vector]:
    """(dW, db) that maximizes <G, dW> + <g, db> - 1/2 |dW (A_c + delta I)^(power/2)|^2 - 1/2 |dW s + db|^2.

    dW = (G - g s^T)(A_c + delta I)^-power, and z moves by g in the mean: db = g - dW s. With power 1 and
    damping 0 this is the argmax of the augmented Hamiltonian with rho_state = 1.

    Also returns the mean squared change of each output z_i that the step causes. gradient is overwritten.
    """
    if bias_gradient is None:
        change, square = metric.measured_solve(gradient, damping, power)
        return change, None, square
    right = gradient.baddbmm_(bias_gradient.unsqueeze(2), mean.unsqueeze(1), alpha=-1)
    change, square = metric.measured_solve(right, damping, power)
    return change, bias_gradient - (change @ mean.unsqueeze(2)).squeeze(2), square + bias_gradient.square()


def output_change(change: Matrix, mean_change: Vector | None, metric: Metric) -> Vector:
    """Mean squared change of each output z_i that the step causes. mean_change: dW s + db."""
    square = metric.squared_change(change)
    return square if mean_change is None else square + mean_change.square()


def outputs_scale(state: Mapping[str, Tensor], square: Vector, unit: Tensor | None, memory: float, steps: int
                  ) -> tuple[Vector, dict[str, Tensor]]:
    """(1 / rho_i, the new running means): rho_i = sqrt of the running mean of the squared changes of output
    i.

    square: of the changes that the gradient divided by `unit` (None: 1) causes; the scale is for these
    changes. So every output moves by about 1 (root mean square over samples) in a step before the factor tau,
    whatever the gradient's scale; by less where gradients fade (fading.py). A hundredth of the mean over
    outputs keeps rho of silent outputs from vanishing. Where no gradient has ever come, 0.
    """
    square = square.to(state["square"].dtype)
    if unit is not None:
        unit = unit.unsqueeze(1)
        square = square.mul_(unit).mul_(unit)
    weight = state["square_weight"] * memory + (1 - memory)
    new = {"square": torch.lerp(state["square"], square, 1 - memory), "square_weight": weight,
           "long_square": long_mean(state["long_square"], square, steps)}
    long = new["long_square"].mean(1)
    new["peak"] = new_peak(state["peak"], long, steps)
    mean_square = unrisen(new["square"] / weight.unsqueeze(1), square, long, new["peak"])
    mean_square = floored(mean_square, new["long_square"], new["peak"].unsqueeze(1))
    known = mean_square.add_(mean_square.mean(1, keepdim=True),
                             alpha=0.01 if mean_square.shape[1] > 1 else 1e-6)
    scale = torch.where(known > 0, known.rsqrt(), 0.0)
    return (scale if unit is None else scale.mul_(unit)).clamp_max(_LARGEST), new


def nesterov(velocity: Tensor, step: Tensor, momentum: float) -> Tensor:
    """v <- m v + (1 - m) d; returns m v + (1 - m) d with the new v, in the place of d."""
    velocity.lerp_(step, 1 - momentum)
    return step.lerp_(velocity, momentum)
