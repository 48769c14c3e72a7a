"""The published rules for weights in {-1, 1} and {-1, 0, 1}: which entries change, each by itself.

w: the weights, in the set. m: a running mean of the Hamiltonian's gradient, minus that of the batch-mean loss, of the same
shape. Entries are independent: correlated inputs do not count. Nothing is changed in place.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Entries = Float[Tensor, "*entries"]
Number = Float[Tensor, ""]


def li_hao_penalty(m: Entries, w: Entries, rho: float) -> Number:
    """r = rho max |m| over the entries with w != sign(m), those that m would change; 0 when there are none.

    |m| (1 - |w|) - m w is |m| at these entries and not positive elsewhere. (Li and Hao, ICML 2018.)
    """
    return rho * (m.abs() * (1 - w.abs()) - m * w).amax().clamp_min(0)


def binary_penalty(m: Entries, w: Entries, rho: float) -> Number:
    """The same where no w is 0: r = rho max(-m w, 0)."""
    return rho * (m * w).amin().neg().clamp_min(0)


def binary_argmax(m: Entries, w: Entries, r: Number | float) -> Entries:
    """argmax over v in {-1, 1} of m v - (r/2) (v - w)^2: sign(m) where |m| > r, otherwise w. (Li and Hao, binary.)"""
    return torch.where(m * w < -r, -w, w)


def ternary_argmax(m: Entries, w: Entries, r: Number | float, l1: float = 0.0) -> Entries:
    """argmax over v in {-1, 0, 1} of m v - l1 |v| - r (v - w)^2. (Li and Hao, ternary.)

    1 where m > l1 + r (1 - 2 w), -1 where m < -l1 - r (1 + 2 w), otherwise 0.
    """
    shifted = m + 2 * r * w
    bound = r + l1
    return (shifted > bound).to(w.dtype) - (shifted < -bound).to(w.dtype)


def bop_flips(m: Entries, w: Entries, threshold: float) -> Entries:
    """-w where |m| > threshold and m points against w, otherwise w. (Helwegen et al., NeurIPS 2019, Bop.)"""
    return torch.where(m * w < -threshold, -w, w)


def ternary_codes(latent: Entries) -> Entries:
    """sign(x) where |x| > 0.7 mean |x|, otherwise 0: nearly the best {-a, 0, a} for normal x. (Li, Zhang and Liu 2016, TWN.)"""
    return latent.sign() * (latent.abs() > 0.7 * latent.abs().mean())


def binary_codes(latent: Entries) -> Entries:
    """sign(x), 1 at 0. (Courbariaux et al., NeurIPS 2015, BinaryConnect, deterministic.)"""
    return torch.where(latent < 0, -1.0, 1.0).to(latent.dtype)
