"""Inputs that are data are measured each in its own unit.

What a network computes comes in one unit, more or less, and where an input hardly varies it says little.
Columns of data come in any: dollars beside degrees, and the damping of A_c, a tenth of their mean variance,
leaves all but the largest of them in the noise. So A_c, and what is damped of it, is that of x_j / unit_j,

    unit_j^2 = c (d_j + 1e-6 mean d),   d = diag A_c,   c so that the trace of A_c stays what it is,

where nothing that is differentiated made the inputs, all of A_c is known, and a batch has two rows or more
for each of them: with fewer, as of pixels, an input that is nearly always the same gets a unit that one row
in a thousand decides. (Tables whose columns differ by a hundred end at a quarter of the loss, raw
measurements of wines at a hundredth; standardized columns level. Networks on 64 pixels end a tenth higher
with a row or two for each, MLPs on 784 a half.)
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST = 1e-6
"""Of the mean variance, which keeps the unit of an input that does not vary from vanishing. With 0.001 tables
end 5 % higher, with 0.03 half of what they gain is lost."""


_ROWS = 2.0
"""Of a batch, for each input."""


class First(NamedTuple):
    """Of the inputs of the first batch, over all processes: how many rows, and whether they are data."""

    rows: int
    are_data: bool


def has_units(first: First, inputs: int) -> bool:
    """Whether each input gets a unit of its own."""
    return first.are_data and first.rows >= _ROWS * inputs > _ROWS


def units(moment: Float[Tensor, "group input input"]) -> Float[Tensor, "group input"]:
    """Of each input; 1 where none varies."""
    variances = moment.diagonal(dim1=1, dim2=2)
    mean = variances.mean(1, keepdim=True)
    known = variances / torch.where(mean > 0, mean, 1.0)
    squares = known + _LEAST
    shrunk = (known / squares).mean(1, keepdim=True)
    return torch.where(mean > 0, squares * shrunk, 1.0).sqrt()
