"""The argmax under a bound on the operator norm of the change: for stages that see many rows.

Maximizing <G, dW> + <g, db> where every direction of the inputs, measured in the metric M = (A_c + delta
I)^exponent, may move the outputs by the same length gives the polar factor O of [(G - g s^T) M^-1, g], and dW
= O_x M^-1. Against G M^-2 it treats all singular directions of the gradient alike, which pays when a batch
has many more rows than the stage has inputs or outputs, so that the small singular values are signal. (The
polar step is that of Muon, Jordan et al. 2024, in the metric of the states.)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.argmax import largest_entry
from pontryagin.affine.metric import FactoredMoment
from pontryagin.affine.precision import coarse_products

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]
Square = Float[Tensor, "group side side"]
Bound = Float[Tensor, "group 1 1"]

_QUINTICS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
"""Of the composition of three odd quintics a s + b s^3 + c s^5 that is nearest to 1 on [0.01, 1]: within 0.27
there. Each is the best on the interval that the one before maps to (Amsel et al. 2025 prove that this is
optimal); found by linear programming. Two, within 0.29 from 0.04 on, leave much of what small singular values
are worth to transformers; a fourth, within 0.2 from 0.003 on, adds nothing that is sure."""
_LONG = 1.5
"""Beside its width, the length of x from which fewer flops are needed by R alone."""
_MILD = 1e-16, 1e16
"""Norms of R of which no square leaves the range of float32."""


def polar_argmax(right: Matrix, bias_gradient: Vector | None, metric: FactoredMoment, damping: float,
                 exponent: float) -> tuple[Matrix, Vector | None]:
    """(dW, dW s + db) from G - g s^T and g. The metric enters with half of the exponent on either side of the
    polar factor: (G - g s^T) M^-1 and O_x M^-1 with M = (A_c + delta I)^(exponent / 2), so that the whole
    scales as the argmax by rows does."""
    joint = metric.solve(right, damping, exponent / 2)
    if bias_gradient is not None:
        joint = torch.cat([joint, bias_gradient.unsqueeze(2)], 2)
    polar = polar_factor(joint)
    mean_change = None if bias_gradient is None else polar[..., -1]
    return metric.solve(polar if mean_change is None else polar[..., :-1], damping, exponent / 2), mean_change


def polar_factor(matrix: Matrix) -> Matrix:
    """About U V^T of matrix = U S V^T: singular values end within 0.27 of 1 if they are at least 0.01 of (sum
    of S^4)^(1/4).

    Each quintic is x <- S x with S = a + b R + c R^2 and R = x x^T of the shorter side: three products. A
    composition of them is a product of such S, which are all functions of the first R, so that where x is
    half as long again as wide, or more, only that is iterated: R <- S R S, and the product of all S is
    applied once. (In TF32 on a CUDA device: what is off is a part in a thousand of the largest, which
    changes the length of small singular values only.)
    """
    wide = matrix.shape[1] <= matrix.shape[2]
    x = matrix if wide else matrix.mT
    with coarse_products(x.device):
        x, gram, bound = _start(x)
        result = (_by_x(x, gram, bound) if x.shape[2] < _LONG * x.shape[1]
                  else torch.bmm(_by_gram(gram).div_(bound.sqrt()), x))
    return result if wide else result.mT


def _start(x: Matrix) -> tuple[Matrix, Square, Bound]:
    """(x times some number, its R over the bound, and the bound: at least the largest eigenvalue)."""
    if x.is_cpu:  # elsewhere the answer would have to be waited for
        gram, bound = _bounded(x)
        least, largest = bound.aminmax()
        if _MILD[0] < least.item() and largest.item() < _MILD[1]:
            return x, gram, bound
    x = x / largest_entry(x).clamp_min(torch.finfo(x.dtype).tiny)[:, None, None]
    return x, *_bounded(x)


def _bounded(x: Matrix) -> tuple[Square, Bound]:
    gram = torch.bmm(x, x.mT)
    bound = torch.linalg.vector_norm(gram, dim=(1, 2), keepdim=True).add_(torch.finfo(x.dtype).tiny)
    return gram.div_(bound), bound


def _factor(gram: Square, out: Square, a: float, b: float, c: float) -> Square:
    """S."""
    torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=out).diagonal(dim1=-2, dim2=-1).add_(a)
    return out


def _by_x(x: Matrix, gram: Square, bound: Bound) -> Matrix:
    """The polar factor; gram, R, is overwritten. bound: x x^T over it is R."""
    factor = torch.empty_like(gram)
    x = torch.bmm(_factor(gram, factor, *_QUINTICS[0]).div_(bound.sqrt()), x)
    spare = torch.empty_like(x)
    for quintic in _QUINTICS[1:]:
        _factor(torch.bmm(x, x.mT, out=gram), factor, *quintic)
        x, spare = torch.bmm(factor, x, out=spare), x
    return x


def _by_gram(gram: Square) -> Square:
    """The product of all S; gram, R, is overwritten."""
    spare, other = torch.empty_like(gram), torch.empty_like(gram)
    product = factor = _factor(gram, torch.empty_like(gram), *_QUINTICS[0])
    for quintic in _QUINTICS[1:]:
        torch.bmm(factor, torch.bmm(gram, factor, out=spare), out=gram)
        factor = _factor(gram, other, *quintic)
        product, spare = torch.bmm(factor, product, out=spare), product
    return product
