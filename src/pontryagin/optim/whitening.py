"""rho as a matrix: what the argmax does to the outputs of a stage, all of them together.

Dividing the change of every output by its root mean square makes all outputs move alike, but outputs that
move together still do, and those of a narrow or deep network mostly do: a few directions take the whole step.
So G and g are first multiplied by the inverse root of the second moment of the change that they would cause,

    C = running mean of dW A dW^T + g g^T,   (G - g s^T, g) <- (C + 0.1 c I)^(-1/2) (G - g s^T, g),

c = mean(diag C), A = A_c + delta I, dW the argmax without it; rho, which comes after, then has little left to
do. The C of each refresh counts for itself, divided by its c, since only its shape matters, and that changes
slowly: refreshed every 400 steps it serves as well as every 10. Wide stages gain nothing and would pay most:
a tenth to a quarter of an iteration. (It is the left factor of Shampoo, Gupta et al. 2018, for the argmax in
the place of the gradient. At equal iterations, two seeds, plain regression ended 12 to 20 % lower, with
targets times 1000 half as high, tables 7 to 13 %, ten layers 5 to 11 %, sigmoids 3 to 18 %; batches of 8
ended 6 to 20 % higher; MLPs of two layers, a VGG and a ViT level.)
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.argmax import largest_entry
from pontryagin.affine.metric import FactoredMoment, eigen
from pontryagin.optim.numbers import Numbers, clip, where

WIDEST = 128
"""Outputs of a stage of which C is kept."""
_DAMPING = 0.1
"""Beside the mean of C's diagonal. Up to 1 the ends are the same, with 3 they are higher again."""
_OWN = 2.0
"""How much further than alone an output may move for the sake of the others."""
Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]
Square = Float[Tensor, "group output output"]
Size = Float[Tensor, " group"]


def own_share(own: Numbers, whole: Numbers, root: Any) -> Numbers:
    """What the rows of R (G - g s^T, g), R = (C + 0.1 c I)^(-1/2), are multiplied by: 1, less where a row is
    more than twice R_ii times the length that it had before. An output without a gradient does not move for
    those that it used to move with.

    own, whole: the length of each row before and after; root: R_ii. In polar steps own is of the batch's
    gradient, whole of the momentum, and root 1.
    """
    return where(whole > 0, clip(_OWN * root * own / whole, None, 1), 1.0)


def inverse_root(moment: Square) -> Square:
    """(C + 0.1 c I)^(-1/2); NaN of what holds NaN, so that a step by it is refused by name."""
    is_finite = moment.isfinite().all(2, keepdim=True).all(1, keepdim=True)
    values, vectors = eigen(torch.where(is_finite, moment, 1.0))
    values = values.clamp_min(0)
    scales = (values + _DAMPING * values.mean(1, keepdim=True)).rsqrt().unsqueeze(1)
    return torch.where(is_finite, ((vectors * scales) @ vectors.mT).to(moment.dtype), torch.nan)


def seen(right: Matrix, mean_change: Vector | None, metric: FactoredMoment, damping: float, exponent: float
         ) -> tuple[Square, Size]:
    """(C of one batch over its c, whether there is one: not for steps of 0, nor of changes beyond numbers).
    right: G - g s^T; mean_change: g."""
    change = metric.half(right, damping, exponent)
    if mean_change is not None:
        change = torch.cat([change, mean_change.unsqueeze(2)], 2)
    largest = largest_entry(change)[:, None, None]
    change = change / torch.where(largest > 0, largest, 1.0)
    found = change @ change.mT
    size = found.diagonal(dim1=1, dim2=2).mean(1)
    is_seen = (size > 0) & size.isfinite()
    return (torch.where(is_seen[:, None, None], found / size[:, None, None], 0.0),
            is_seen.to(change.dtype))
