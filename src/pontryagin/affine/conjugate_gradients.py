"""Preconditioned conjugate gradients for several symmetric systems at once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Systems = Float[Tensor, "stage row column"]


def conjugate_gradients(operator: Callable[[Systems], Systems], precondition: Callable[[Systems], Systems],
                        right: Systems, tolerance: float = 1e-10, iterations: int = 200) -> Systems:
    """X with operator(X) = right, each stage alone, for a positive semi-definite operator and right in its
    range.

    Stops when every residual is below tolerance |right|, or after so many iterations: then X is the best of
    its Krylov space, which still raises the quadratic that the system belongs to.
    """
    solution, residual = torch.zeros_like(right), right
    direction = improved = precondition(residual)
    slope = _inner(residual, improved)
    least = tolerance**2 * _inner(right, right)
    for _ in range(iterations):
        active = (_inner(residual, residual) > least) & (slope > 0)
        if not active.any():
            break
        image = operator(direction)
        curvature = _inner(direction, image)
        active = active & (curvature > 0)
        length = torch.where(active, slope / torch.where(active, curvature, 1.0), 0.0)
        solution = solution + length * direction
        residual = residual - length * image
        improved = precondition(residual)
        new_slope = _inner(residual, improved)
        direction = improved + torch.where(active, new_slope / torch.where(active, slope, 1.0),
                                           0.0) * direction
        slope = new_slope
    return solution


def _inner(first: Systems, second: Systems) -> Tensor:
    return (first * second).sum((1, 2), keepdim=True)
