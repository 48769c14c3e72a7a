"""The admissible sets that an audit tries on every stage, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.problem import ProblemError
from pontryagin.problem.admissible.names import NAMED, set_name

Weight = Float[Tensor, "*stage row input"]


@runtime_checkable
class Projection(Protocol):
    """A set of matrices, row i making output i (`Rows`): every MatrixSet is one."""

    def project(self, weight: Weight) -> Weight:
        """The point of the set that stands for W, near to it."""

    def check(self, rows: int, inputs: int) -> None:
        """ProblemError when no (rows, inputs) matrix fits the set."""


@dataclass(frozen=True)
class RoundToNearest:
    """W_ij = a_i c_ij with signed integers of so many bits, |c| <= L = 2^(bits - 1) - 1, and a_i = max_j
    |W_ij| / L.

    Codebook's projection without the search for the best a_i, which at 8 bits takes long and gains little.
    """

    bits: int

    def project(self, weight: Weight) -> Weight:
        """Every entry rounded."""
        limit = 2 ** (self.bits - 1) - 1
        scale = weight.abs().amax(-1, keepdim=True) / limit
        return torch.where(scale > 0, (weight / scale).round() * scale, 0.0)

    def check(self, rows: int, inputs: int) -> None:
        """Any shape will do."""


SETS: Mapping[str, Projection] = {**NAMED, "int8": RoundToNearest(8)}
"""The sets that training has by these names."""
STANDARD = ("int8", "int4", "ternary-rows", "binary-rows", "2:4", "50%")
"""Those that are tried where none is named."""


def chosen(names: tuple[str, ...] | None) -> dict[str, Projection]:
    """The sets of these names, None for the standard ones. ProblemError for an unknown name."""
    unknown = [name for name in names or () if set_name(name) not in SETS]
    if unknown:
        raise ProblemError(f"unknown admissible sets {', '.join(unknown)}: expected some of "
                           f"{', '.join(SETS)}")
    return {name: SETS[name] for name in map(set_name, names or STANDARD)}
