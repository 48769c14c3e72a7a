"""The argmax of an affine stage in the metric of its inputs, and what it does to the outputs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.metric import FactoredMoment

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]


def argmax(gradient: Matrix, bias_gradient: Vector | None, mean: Tensor, metric: FactoredMoment,
           damping: float, exponent: float) -> tuple[Matrix, Vector | None, Vector]:
    """(dW, db) that maximizes <G, dW> + <g, db> - 1/2 |dW (A_c + delta I)^(exponent/2)|^2 - 1/2 |dW s +
    db|^2.

    dW = (G - g s^T)(A_c + delta I)^-exponent, and z moves by g in the mean: db = g - dW s. With exponent 1
    and damping 0 this is the argmax of the augmented Hamiltonian with rho_state = 1.

    Also returns the mean squared change of each output z_i that the step causes.
    """
    if bias_gradient is None:
        change, square, _ = metric.measured_solve(gradient, damping, exponent)
        return change, None, square
    right = centred(gradient, bias_gradient, mean)
    change, square, _ = metric.measured_solve(right, damping, exponent)
    return change, bias_change(bias_gradient, change, mean), square + bias_gradient.square()


def centred(gradient: Matrix, bias_gradient: Vector, mean: Tensor) -> Matrix:
    """G - g s^T."""
    return torch.addcmul(gradient, bias_gradient.unsqueeze(2), mean.unsqueeze(1), value=-1)


def bias_change(mean_change: Vector, change: Matrix, mean: Tensor) -> Vector:
    """db = (dW s + db) - dW s."""
    return mean_change - shift(change, mean)


def shift(change: Matrix, mean: Tensor) -> Vector:
    """dW s."""
    return torch.bmm(change, mean.unsqueeze(2)).squeeze(2)


def output_change(change: Matrix, mean_change: Vector | None, metric: FactoredMoment) -> Vector:
    """Mean squared change of each output z_i that the step causes. mean_change: dW s + db."""
    square = metric.squared_change(change)
    return square if mean_change is None else square + mean_change.square()


@dataclass(frozen=True)
class Change:
    """A change of a stage's control, or minus its gradient (G, g): dW, and db where it has a bias."""

    weight: Matrix
    bias: Vector | None

    def dot(self, other: "Change") -> float:
        """<dW, dW'> + <db, db'>."""
        product = (self.weight * other.weight).sum().item()
        if self.bias is None or other.bias is None:
            return product
        return product + (self.bias * other.bias).sum().item()

    def is_finite(self) -> bool:
        """Whether all entries are."""
        return all(bool(part.isfinite().all()) for part in (self.weight, self.bias) if part is not None)

    def times(self, factor: float) -> "Change":
        """So many times this change."""
        return Change(self.weight * factor, None if self.bias is None else self.bias * factor)

    def add(self, other: "Change", factor: float) -> None:
        """So many times another change added to this one, in its place."""
        self.weight.add_(other.weight, alpha=factor)
        if self.bias is not None and other.bias is not None:
            self.bias.add_(other.bias, alpha=factor)


def largest_entry(value: Tensor) -> Tensor:
    """The largest absolute value of each group, (group). (A norm of infinite order is ten times slower on
    CPUs.)"""
    axes = tuple(range(1, value.ndim))
    return torch.maximum(value.amax(axes), value.amin(axes).neg())
