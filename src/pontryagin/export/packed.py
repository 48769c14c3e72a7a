"""A weight in packed form, and modules that compute with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.export.bits import bits_of, pack, unpack
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import DiscreteSet
from pontryagin.problem.admissible.grid import Grid
from pontryagin.problem.admissible.per_parameter import as_matrix, matrix_shape


@dataclass(frozen=True)
class PackedWeight:
    """W = scale_i * code_ij, rows the first axis: packed codes (uint8), scales (rows,) or (1,) in the dtype of W."""

    grid: Grid
    codes: Tensor
    scales: Tensor
    shape: torch.Size

    def weight(self) -> Tensor:
        """W, exactly as it was."""
        codes = unpack(self.codes, self.grid, prod(self.shape)).to(self.scales.dtype)
        return (as_matrix(codes, self.shape) * self.scales.unsqueeze(1)).view(self.shape)

    @property
    def bits(self) -> int:
        """Of a code."""
        return bits_of(self.grid)

    @property
    def bytes(self) -> int:
        """Of codes and scales."""
        return len(self.codes) + self.scales.numel() * self.scales.element_size()


def packed_weight(weight: Tensor, admissible: DiscreteSet) -> PackedWeight:
    """The packed form of a weight of the set. ProblemError when it lies outside."""
    admissible.check(*matrix_shape(weight.shape))
    codes, scales = admissible.encode(as_matrix(weight.detach().flatten(), weight.shape))
    if (scales == scales[0]).all():
        scales = scales[:1]
    return PackedWeight(admissible.grid, pack(codes, admissible.grid), scales.to(weight.dtype).clone(), weight.shape)


class Packed(nn.Module):
    """A module whose weight is kept packed and made whole for each call: same outputs, bit by bit; for inference."""

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
        self._packed = {name: (packed.grid, packed.shape) for name, packed in weights.items()}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The module's own, with its weights."""
        whole = {name: self.packed(name).weight() for name in self._packed}
        return torch.func.functional_call(self.module, whole, inputs, named)

    def packed(self, name: str) -> PackedWeight:
        """One of its weights."""
        grid, shape = self._packed[name]
        return PackedWeight(grid, self.get_buffer(f"{name}_codes"), self.get_buffer(f"{name}_scales"), shape)
