"""The Hamiltonian gain still to be had at a stage, without the bias that noise gives it.

Per sample, G_i = u x^T (summed over positions) and g_i = u; with the Gram matrix A_c, its mean s and damping
delta,

    dW = (G - g s^T) (A_c + delta I)^-1,   db = g - dW s,   <G, dW> + <g, db> = Q(G, G)

is the direction of the argmax with a state penalty, and Q(G, G') = <G - g s^T, (G' - g' s'^T) (A_c + delta
I)^-1> + <g, g'>. For means G of independent batches E Q(G_a, G_b) = Q(E G, E G) when a differs from b, while
E Q(G_b, G_b) is larger by the noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.audit.gram import Gram

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]


@dataclass(frozen=True)
class Change:
    """A change of a stage's control: dW, and db where it has a bias."""

    weight: Matrix
    bias: Vector | None

    def dot(self, other: "Change") -> float:
        """<dW, dW'> + <db, db'>."""
        product = (self.weight * other.weight).sum().item()
        return product if self.bias is None or other.bias is None else product + (self.bias
                                                                                  * other.bias).sum().item()


def argmax_direction(gradient: Change, gram: Gram) -> Change:
    """(dW, db) for rho = 1, from (G, g)."""
    weight = gram.solve(_centred(gradient, gram))
    if gradient.bias is None:
        return Change(weight, None)
    return Change(weight, gradient.bias - (weight @ gram.mean.unsqueeze(2)).squeeze(2))


def own_gain(gradient: Change, gram: Gram) -> float:
    """Q(G, G)."""
    gain = gram.inner(_centred(gradient, gram))
    return gain if gradient.bias is None else gain + gradient.bias.square().sum().item()


def squared_state_change(change: Change, gradient_bias: Vector | None, gram: Gram) -> float:
    """mean |dW x + db|^2 over rows, of the direction whose g this is: tr(dW A_c dW^T) + |g|^2."""
    square = gram.squared_change(change.weight)
    return square if gradient_bias is None else square + gradient_bias.square().sum().item()


def _centred(gradient: Change, gram: Gram) -> Matrix:
    if gradient.bias is None:
        return gradient.weight
    return gradient.weight - gradient.bias.unsqueeze(2) * gram.mean.unsqueeze(1)


def across_batches(total: float, own: Sequence[float], cross: Sequence[float],
                   weights: Sequence[float]) -> tuple[float, float]:
    """Mean of Q(G_a, G_b) over pairs of different batches, and its standard error by the jackknife over
    batches.

    With weights w_b that add up to 1 and the mean G = sum_b w_b G_b: total = Q(G, G), own_b = Q(G_b, G_b),
    cross_b = Q(G_b, G). Needs three batches.
    """
    w, q, k = (torch.tensor(values, dtype=torch.float64) for values in (weights, own, cross))
    squares, diagonal = w.square(), (w.square() * q).sum()
    estimate = (total - diagonal) / (1 - squares.sum())
    left_out = total - 2 * w * k + squares * q - (diagonal - squares * q)
    left_out = left_out / ((1 - w).square() - (squares.sum() - squares))
    spread = (left_out - left_out.mean()).square().sum() * (len(w) - 1) / len(w)
    return estimate.item(), spread.sqrt().item()
