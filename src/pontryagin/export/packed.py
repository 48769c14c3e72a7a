"""A weight in packed form, and modules that compute with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.export.bits import bits_of, pack, unpack
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import DiscreteSet, Rows
from pontryagin.problem.admissible.grid import Grid


@dataclass(frozen=True)
class PackedWeight:
    """W = scale_i * code_ij for every row i of W as the matrix of `rows`.

    codes: packed (uint8), in the order of that matrix. scales: (rows,) or (1,), in the dtype of W.
    """

    grid: Grid
    codes: Tensor
    scales: Tensor
    rows: Rows

    @property
    def shape(self) -> torch.Size:
        """Of W."""
        return self.rows.shape

    def weight(self) -> Tensor:
        """W, exactly as it was."""
        codes = unpack(self.codes, self.grid, prod(self.shape)).to(self.scales.dtype)
        return self.rows.shaped(codes.view(self.rows.size) * self.scales.unsqueeze(1)).contiguous()

    @property
    def bits(self) -> int:
        """Of a code."""
        return bits_of(self.grid)

    @property
    def bytes(self) -> int:
        """Of codes and scales."""
        return len(self.codes) + self.scales.numel() * self.scales.element_size()


def packed_weight(weight: Tensor, admissible: DiscreteSet, rows: Rows | None = None) -> PackedWeight:
    """The packed form of a weight.

    Args:
        weight: of any shape, a point of the set bit by bit.
        admissible: a set of codes times scales, such as Ternary(scale="row").
        rows: the matrix as which the weight lies there; by default those that fit (fitting_rows).

    Raises:
        ProblemError: it lies outside, or the set is no discrete one.
    """
    if not isinstance(admissible, DiscreteSet):
        raise ProblemError("expected a discrete set such as Ternary(scale='row') to pack, found "
                           f"{admissible!r}")
    rows = rows or fitting_rows(weight, admissible) or Rows(weight.shape)
    admissible.check(*rows.size)
    codes, scales = admissible.encode(rows.matrix(weight.detach()))
    if (scales == scales[0]).all():
        scales = scales[:1]
    return PackedWeight(admissible.grid, pack(codes, admissible.grid), scales.to(weight.dtype).clone(), rows)


def fitting_rows(weight: Tensor, admissible: DiscreteSet) -> Rows | None:
    """Rows in which a weight lies in the set exactly, None when there are none.

    A tensor alone does not say whether it is the weight of a transposed convolution: its first axis is tried,
    then, with three axes or more, the outputs of a transposed convolution of one group, of two, and so on: as
    few scales as will do.
    """
    shape, several = weight.shape, weight.ndim > 2 and admissible.scale == "row"
    groups = [n for n in range(1, shape[0] + 1) if shape[0] % n == 0] if several else []
    for rows in (Rows(shape), *(Rows(shape, n) for n in groups)):
        matrix = rows.matrix(weight.detach())
        if admissible.contains(matrix[:1]).all() and admissible.contains(matrix).all():  # one row tells most
            return rows
    return None


class Packed(nn.Module):
    """A module whose weight is kept packed and made whole for each call: same outputs, bit by bit; for
    inference."""

    def __init__(self, module: nn.Module, weights: Mapping[str, PackedWeight]) -> None:
        super().__init__()
        for name, packed in weights.items():
            shape = module.get_parameter(name).shape
            if shape != packed.shape:
                raise ProblemError(f"{name}: expected shape {tuple(shape)}, found {tuple(packed.shape)}")
            setattr(module, name, None)
            self.register_buffer(f"{name}_codes", packed.codes)
            self.register_buffer(f"{name}_scales", packed.scales)
        self.module = module
        self._packed = {name: (packed.grid, packed.rows) for name, packed in weights.items()}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The module's own, with its weights."""
        whole = {name: self.packed(name).weight() for name in self._packed}
        return torch.func.functional_call(self.module, whole, inputs, named)

    def packed(self, name: str) -> PackedWeight:
        """One of its weights."""
        grid, rows = self._packed[name]
        return PackedWeight(grid, self.get_buffer(f"{name}_codes"), self.get_buffer(f"{name}_scales"), rows)
