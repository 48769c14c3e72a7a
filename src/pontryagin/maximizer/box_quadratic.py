"""The argmin of a quadratic function over a box."""

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDS = 100
"""Changes of the active set at most; a handful is usual, since most are right at once."""

Vector = Float[Tensor, " entry"]


def minimize_in_box(gradient: Vector, hessian: Float[Tensor, "entry entry"], low: Vector, high: Vector
                    ) -> Vector:
    """argmin of <gradient, d> + 1/2 d^T hessian d over low <= d <= high, low <= 0 <= high, hessian positive
    definite: Newton steps in the entries that are free, projected and halved until the function falls.

    Without bounds one Cholesky solve. Raises torch.linalg.LinAlgError where the hessian is not positive
    definite. Source: Bertsekas 1982, projected Newton methods.
    """
    point = torch.zeros_like(gradient)
    for _ in range(_ROUNDS):
        slope = gradient + hessian @ point
        held = ((point <= low) & (slope > 0)) | ((point >= high) & (slope < 0))
        free = ~held
        if not free.any() or float(slope[free].abs().max()) <= 1e-15 * float(gradient.abs().max()):
            break
        factor = torch.linalg.cholesky(hessian[free][:, free])
        step = torch.zeros_like(point)
        step[free] = -torch.cholesky_solve(slope[free].unsqueeze(1), factor).squeeze(1)
        trial = (point + step).clamp(low, high)
        if torch.equal(trial, point + step):  # the free entries stay inside: their minimum
            if torch.equal(trial, point):
                break
            point = trial
            if not held.any():
                break
            continue
        length = 1.0
        while length > 1e-10 and (_change(slope, hessian, trial - point)
                                  > 1e-4 * float(slope @ (trial - point))):
            length /= 2
            trial = (point + length * step).clamp(low, high)
        if torch.equal(trial, point):
            break
        point = trial
    return point


def _change(slope: Vector, hessian: Tensor, move: Vector) -> float:
    return float(slope @ move + 0.5 * move @ (hessian @ move))
