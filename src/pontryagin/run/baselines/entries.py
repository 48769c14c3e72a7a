"""Weights in a discrete set, and the published rules for {-1, 1} and {-1, 0, 1}: which entries change, each
by itself.

w: the weights, in the set. m: a running mean of the Hamiltonian's gradient, minus that of the batch-mean
loss, of the same shape. Entries are independent: correlated inputs do not count. Nothing is changed in place.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import hardshrink

from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Binary, DiscreteSet, MatrixSet, Rows, Ternary

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
    binary; with a fixed r the flips of Bop, Helwegen et al., NeurIPS 2019.)

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


def binary_codes(latent: Entries) -> Entries:
    """The sign, by the sign bit at 0. (Courbariaux et al., NeurIPS 2015, BinaryConnect, deterministic.)"""
    return torch.copysign(torch.ones_like(latent), latent)


def ternary_codes(latent: Entries) -> Entries:
    """sign(x) where |x| > 0.7 mean |x|, otherwise 0: nearly the best {-a, 0, a} for normal x. (Li, Zhang and
    Liu 2016, TWN.)"""
    return hardshrink(latent, 0.7 * latent.abs().mean().item()).sign_()


def rounded(latent: Tensor, admissible: DiscreteSet) -> Tensor:
    """The weights that stand for latent ones: the sign (Binary), ternary_codes (Ternary), with a fixed scale;
    with a scale per row and for other discrete sets the projection."""
    if admissible.scale != "row" and isinstance(admissible, Binary | Ternary):
        codes = binary_codes if isinstance(admissible, Binary) else ternary_codes
        return codes(latent) * admissible.scale
    rows = Rows(latent.shape)
    return rows.shaped(admissible.project(rows.matrix(latent)))


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained parameters with two axes or more (weights), and the others (biases, normalizations)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim < 2]


def inside(weight: Tensor, admissible: MatrixSet) -> bool:
    """Whether a weight lies in the set, exactly; rows are its first axis."""
    weight = weight.detach()
    if isinstance(admissible, Binary | Ternary) and admissible.scale != "row":  # asked after every iteration
        size = weight.abs()
        scale = torch.tensor(admissible.scale, dtype=weight.dtype)
        off = size - scale if isinstance(admissible, Binary) else (size - scale).mul_(size)
        return all(bound.item() == 0 for bound in off.aminmax())
    rows = Rows(weight.shape)
    return bool(admissible.within(rows).contains(rows.matrix(weight)))


def draw(shape: Sequence[int], admissible: MatrixSet, generator: torch.Generator | None = None) -> Tensor:
    """Weights with each code of a discrete set equally often, and scale 1 where it is free. ProblemError for
    other sets."""
    if not isinstance(admissible, DiscreteSet):
        raise ProblemError(f"expected a discrete set such as Binary() or Ternary(), found {admissible!r}")
    codes = torch.tensor(admissible.grid.codes, dtype=torch.get_default_dtype())
    scale = 1.0 if admissible.scale == "row" else admissible.scale
    return codes[torch.randint(len(codes), tuple(shape), generator=generator)] * scale
