"""The metric of a pack: P of all its stages in padded form, and (dW, db) of Y by it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "group output column"]
Calls = tuple[Callable[[], Any], ...]
"""One after the other."""


@dataclass(frozen=True, eq=False)
class Measure:
    """The mean squared change of an output: squares of what `solving` has, each times its worth, and `tail`
    |dW|^2."""

    worth: Float[Tensor, "group place"]
    tail: Float[Tensor, " group"]


@dataclass(frozen=True, eq=False)
class Whole:
    """By one product."""

    product: Float[Tensor, "group column column"]
    shift: Tensor
    mask: Tensor | None
    outside: Tensor | None = None
    measure: Measure | None = None

    def solve(self, right: Rows, out: Rows) -> None:
        torch.bmm(right, self.product, out=out)

    def solving(self, right: Rows, out: Rows) -> tuple[Calls, Tensor]:
        return (partial(torch.bmm, right, self.product, out=out),), out

    def transposed(self, right: Rows, out: Rows) -> None:
        torch.bmm(right, self.product.mT, out=out)


@dataclass(frozen=True, eq=False)
class Subspace:
    """P = outside I + Q D: Y outside + (Y left) product, the last column of either for what P does to s."""

    outside: Float[Tensor, "group 1 column"]
    left: Float[Tensor, "group column rank"]
    product: Float[Tensor, "group rank column"]
    shift: Tensor
    mask: Tensor | None
    measure: Measure | None = None

    def solve(self, right: Rows, out: Rows) -> None:
        torch.mul(right, self.outside, out=out)
        out.baddbmm_(torch.bmm(right, self.left), self.product)

    def solving(self, right: Rows, out: Rows) -> tuple[Calls, Tensor]:
        inner = torch.bmm(right, self.left)
        return (partial(torch.bmm, right, self.left, out=inner),
                partial(torch.bmm, inner, self.product, out=out)), inner

    def transposed(self, right: Rows, out: Rows) -> None:
        torch.mul(right, self.outside, out=out)
        out.baddbmm_(torch.bmm(right, self.product.mT), self.left.mT)


@dataclass(frozen=True, eq=False)
class Single:
    """Of stages with one input: (P, -P s) times it, and g."""

    product: Float[Tensor, "group 1 column"]
    rest: Float[Tensor, " column"]
    shift: Tensor
    mask: Tensor | None
    outside: Tensor | None = None
    measure: Measure | None = None

    def solve(self, right: Rows, out: Rows) -> None:
        torch.mul(right, self.rest, out=out)
        out.addcmul_(right[..., :1], self.product)

    def solving(self, right: Rows, out: Rows) -> tuple[Calls, Tensor]:
        return (partial(torch.mul, right, self.rest, out=out), partial(
            out.addcmul_, right[..., :1], self.product)), out


PackedMetric = Whole | Subspace | Single
"""P of all stages in padded form, and (dW, db) of Y by it. shift: delta, (group, 1); mask: 0 for inputs that
do not vary, (group, 1, column), None where all do. solving: calls that solve again and again, but for Y times
`outside`, where that is not None, which is left to be added; and what `measure` asks for. measure: None where
|Y| and |dW| say it, or a product."""


def with_corner(matrix: Tensor, column: Tensor) -> Tensor:
    """[[matrix, column], [0, 1]]."""
    wide = torch.cat([matrix, column], 2)
    row = wide.new_zeros(len(wide), 1, wide.shape[2])
    row[..., -1] = 1
    return torch.cat([wide, row], 1)
