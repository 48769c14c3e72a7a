"""The admissible sets that an audit tries on every stage, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.problem import ProblemError

Weight = Float[Tensor, "*stage row input"]


class Projection(Protocol):
    """A set of matrices, row i making output i, and a point of it near to any matrix."""

    def project(self, weight: Weight) -> Weight:
        """The point that stands for W."""

    def check(self, rows: int, inputs: int) -> None:
        """ProblemError when no (rows, inputs) matrix fits the set."""


@dataclass(frozen=True)
class RoundToNearest:
    """W_ij = a_i c_ij with signed integers of so many bits, |c| <= L = 2^(bits - 1) - 1, and a_i = max_j |W_ij| / L."""

    bits: int

    def project(self, weight: Weight) -> Weight:
        """Every entry rounded."""
        limit = 2 ** (self.bits - 1) - 1
        scale = weight.abs().amax(-1, keepdim=True) / limit
        return torch.where(scale > 0, (weight / scale).round() * scale, 0.0)

    def check(self, rows: int, inputs: int) -> None:
        """Any shape will do."""


@dataclass(frozen=True)
class _Levels:
    binary: bool

    def project(self, weight: Weight) -> Weight:
        if self.binary:
            return torch.where(weight < 0, -1.0, 1.0) * weight.abs().mean(-1, keepdim=True)
        size = weight.abs()
        falling = size.sort(-1, descending=True).values
        sums, counts = falling.cumsum(-1), torch.arange(1, weight.shape[-1] + 1)
        best = (sums.square() / counts).argmax(-1, keepdim=True)
        return torch.where(size >= falling.gather(-1, best), weight.sign() * (sums.gather(-1, best) / (best + 1)), 0.0)

    def check(self, rows: int, inputs: int) -> None:
        pass


@dataclass(frozen=True)
class _Sparse:
    groups: bool

    def project(self, weight: Weight) -> Weight:
        rows = weight.unflatten(-1, (-1, 4)) if self.groups else weight
        places = rows.abs().topk(rows.shape[-1] // 2, -1).indices
        return torch.zeros_like(rows).scatter(-1, places, rows.gather(-1, places)).reshape(weight.shape)

    def check(self, rows: int, inputs: int) -> None:
        if self.groups and inputs % 4:
            raise ProblemError(f"2:4 sparse: expected rows whose length is a multiple of 4, found {inputs}")
        if inputs < 2:
            raise ProblemError(f"sparse: expected rows of two entries or more, found {inputs}")


SETS: Mapping[str, Projection] = {
    "int8": RoundToNearest(8), "int4": RoundToNearest(4), "ternary": _Levels(False), "binary": _Levels(True),
    "2:4": _Sparse(True), "50%": _Sparse(False),
}
"""Signed integers of 8 and of 4 bits, {-a, 0, a}, {-a, a}, two of four non-zero, half of each row non-zero; a scale per row."""


def chosen(names: tuple[str, ...] | None) -> dict[str, Projection]:
    """The standard sets of these names, None for all. ProblemError for an unknown name."""
    unknown = [name for name in names or () if name not in SETS]
    if unknown:
        raise ProblemError(f"unknown admissible sets {', '.join(unknown)}: expected some of {', '.join(SETS)}")
    return {name: SETS[name] for name in names or SETS}
