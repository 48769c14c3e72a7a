"""Grids of integer codes, and scales so short that a code times a scale is exact."""

from dataclasses import dataclass
from math import isfinite, log2
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.errors import ProblemError

Scale = float | int | Literal["row"]
"""A fixed positive scale, or "row": every row of the matrix has a positive scale of its own."""

_CHUNK = 1 << 23
"""Entries of the sorted list of breakpoints that are held at a time: 64 MiB in float64."""


@dataclass(frozen=True)
class Grid:
    """The codes -limit, -limit + step, ..., limit."""

    step: int
    limit: int

    @property
    def codes(self) -> tuple[int, ...]:
        """All codes, rising."""
        return tuple(range(-self.limit, self.limit + 1, self.step))

    def nearest(self, value: Tensor) -> Tensor:
        """The nearest code of each entry, the upper one of two."""
        steps = ((value + self.limit) / self.step + 0.5).floor()  # 0.5 and floor: rounded half up
        return (steps * self.step - self.limit).clamp(-self.limit, self.limit)


def check_scale(name: str, scale: Scale) -> None:
    """ProblemError unless the scale is "row" or a finite positive number."""
    if scale == "row":
        return
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not (isfinite(scale) and scale > 0):
        raise ProblemError(f'{name}: expected a finite scale > 0, or "row" for a scale per row, found '
                           f'{scale!r}')


def short_scale(scale: Tensor, grid: Grid, dtype: torch.dtype) -> Tensor:
    """Scales rounded to so few digits that each code times its scale is exact in a dtype."""
    if grid.limit == 1:  # -1, 0, 1: exact for every scale
        return scale.to(dtype)
    digits = round(1 - log2(torch.finfo(dtype).eps)) - grid.limit.bit_length()
    mantissa, exponent = torch.frexp(scale)
    return torch.ldexp((mantissa * 2.0**digits).round() / 2.0**digits, exponent).to(dtype)


def best_scale(weight: Float[Tensor, "row input"], grid: Grid
               ) -> tuple[Float[Tensor, "row input"], Float[Tensor, " row"]]:
    """Codes and scale of each row that minimize sum_j (W_ij - a_i c_ij)^2 over both; scale 0 for zeros alone.

    As a falls, the codes nearest to W/a change at breakpoints only; between them the best scale is <W, c> /
    |c|^2 with error |W|^2 - <W, c>^2 / |c|^2. All breakpoints are tried, so the minimum is global.
    """
    rows = max(1, _CHUNK // (weight.shape[1] * len(grid.codes)))
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    scales = torch.cat([_row_scales(part, grid) for part in wide.split(rows)])
    scales = short_scale(scales, grid, weight.dtype)
    divided = weight / torch.where(scales > 0, scales, 1.0).unsqueeze(1)
    return grid.nearest(divided), scales


def _row_scales(weight: Tensor, grid: Grid) -> Tensor:
    size = weight.abs()
    first = float(grid.limit % grid.step)  # the least |code|
    levels = torch.arange(first, grid.limit, grid.step, dtype=weight.dtype, device=weight.device)
    product = first * size.sum(1, keepdim=True)
    square = torch.full_like(size[:, :1], first * first * size.shape[1])
    if len(levels):  # |code| rises from c to c + step at 1/a = (c + step/2) / |w|
        inverse = ((levels + grid.step / 2) / size.unsqueeze(2)).flatten(1)
        order = inverse.argsort(1)
        products = (grid.step * size.unsqueeze(2)).expand(-1, -1, len(levels)).flatten(1).gather(1, order)
        rise = (levels + grid.step).square() - levels.square()
        squares = rise.expand(*size.shape, -1).flatten(1).gather(1, order)
        product = torch.cat([product, product + products.cumsum(1)], 1)
        square = torch.cat([square, square + squares.cumsum(1)], 1)
    explained = torch.where(square > 0, product.square() / square.clamp_min(1.0), 0.0)
    best = explained.argmax(1, keepdim=True)
    return (product.gather(1, best) / square.gather(1, best).clamp_min(1.0)).squeeze(1)
