"""The published rules for weights in {-1, 1} and {-1, 0, 1}: which entries change, each by itself.

w: the weights, in the set. m: a running mean of the Hamiltonian's gradient, minus that of the batch-mean
loss, of the same shape. Entries are independent: correlated inputs do not count. Nothing is changed in place.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import hardshrink

Entries = Float[Tensor, "*entries"]
Number = Float[Tensor, ""]


def li_hao_penalty(m: Entries, w: Entries, rho: float) -> Number:
    """r = rho max |m| over the entries with w != sign(m), those that m would change; 0 when there are none.

    |m| at these entries is m times sign(m) - w, clipped to [-1, 1], which is 0 elsewhere. (Li and Hao, ICML
    2018.)
    """
    return rho * m.sign().sub_(w).clamp_(-1, 1).mul_(m).amax()


def binary_penalty(m: Entries, w: Entries, rho: float) -> Number:
    """The same where no w is 0: r = rho max(-m w, 0)."""
    return rho * (m * w).amin().clamp_max(0).abs()


def binary_argmax(m: Entries, w: Entries, r: Number | float) -> Entries:
    """argmax over v in {-1, 1} of m v - (r/2) (v - w)^2: sign(m) where |m| > r, otherwise w. (Li and Hao,
    binary.)

    So w turns where m w + r < 0. copysign(w, x) is the sign of x. (torch.where is ten times slower on CPUs.)
    """
    return torch.copysign(w, m * w + r).mul_(w)


def ternary_argmax(m: Entries, w: Entries, r: Number | float, l1: float = 0.0) -> Entries:
    """argmax over v in {-1, 0, 1} of m v - l1 |v| - r (v - w)^2. (Li and Hao, ternary.)

    1 where m > l1 + r (1 - 2 w), -1 where m < -l1 - r (1 + 2 w), otherwise 0: the sign of m + 2 r w beyond r
    + l1.
    """
    r = float(r)
    return hardshrink(torch.add(m, w, alpha=2 * r), r + l1).sign_()


def bop_flips(m: Entries, w: Entries, threshold: float) -> Entries:
    """-w where |m| > threshold and m points against w, otherwise w. (Helwegen et al., NeurIPS 2019, Bop.)"""
    return binary_argmax(m, w, threshold)


def ternary_codes(latent: Entries) -> Entries:
    """sign(x) where |x| > 0.7 mean |x|, otherwise 0: nearly the best {-a, 0, a} for normal x. (Li, Zhang and
    Liu 2016, TWN.)"""
    return hardshrink(latent, 0.7 * latent.abs().mean().item()).sign_()


def binary_codes(latent: Entries) -> Entries:
    """The sign, by the sign bit at 0. (Courbariaux et al., NeurIPS 2015, BinaryConnect, deterministic.)"""
    return torch.copysign(torch.ones_like(latent), latent)
