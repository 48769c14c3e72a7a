"""The step of affine stages: the argmax in their metric, rho per output, momentum after the solve."""

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.optim.metric import Metric

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]


def argmax(gradient: Matrix, bias_gradient: Vector | None, mean: Tensor, metric: Metric, damping: float,
           power: float) -> tuple[Matrix, Vector | None, Vector]:
    """(dW, db) that maximizes <G, dW> + <g, db> - 1/2 |dW (A_c + delta I)^(power/2)|^2 - 1/2 |dW s + db|^2.

    dW = (G - g s^T)(A_c + delta I)^-power, and z moves by g in the mean: db = g - dW s. With power 1 and damping 0 this is the
    argmax of the augmented Hamiltonian with rho_state = 1.

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


def remember(state: dict[str, Tensor], square: Vector, memory: float) -> None:
    """Take the squared changes of the outputs into their running, bias-corrected mean: rho^2."""
    state["square"].lerp_(square, 1 - memory)
    state["square_weight"].lerp_(torch.ones_like(state["square_weight"]), 1 - memory)


def normalized(state: dict[str, Tensor], change: Matrix, bias_change: Vector | None, momentum: float
               ) -> tuple[Matrix, Vector | None]:
    """Divide by rho_i = sqrt of the running mean of the squared changes, then Nesterov momentum.

    So every output moves by about 1 (root mean square over samples) in a step before the factor tau. A hundredth of the mean
    over outputs keeps rho of silent outputs from vanishing. The changes are overwritten.
    """
    mean_square = state["square"] / state["square_weight"].unsqueeze(1)
    floor = (0.01 if mean_square.shape[1] > 1 else 1e-6) * mean_square.mean(1, keepdim=True)
    scale = (mean_square + floor + torch.finfo(mean_square.dtype).tiny).rsqrt()
    moved = _nesterov(state["velocity"], change.mul_(scale.unsqueeze(2)), momentum)
    if bias_change is None:
        return moved, None
    return moved, _nesterov(state["bias_velocity"], bias_change.mul_(scale), momentum)


def _nesterov(velocity: Tensor, step: Tensor, momentum: float) -> Tensor:
    """v <- m v + (1 - m) d; returns m v + (1 - m) d with the new v, in the place of d."""
    velocity.lerp_(step, 1 - momentum)
    return step.lerp_(velocity, momentum)
