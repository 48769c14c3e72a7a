"""What a row of a weight is: which of its entries make one output, and share a scale."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Rows:
    """A weight of this shape as the matrix (row, input) that admissible sets see, and back.

    groups None: rows are the first axis, inputs all the others in their order: (output, input) of Linear,
    (output, channel, *tap) of a convolution, (token, component) of an embedding; a vector or number is one
    row. groups given: the weight (channel, output / groups, *tap) of a transposed convolution; row g * output
    / groups + o is output o of group g, inputs are the group's channels and then taps, as in a convolution.
    """

    shape: torch.Size
    groups: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(rows, inputs)."""
        if len(self.shape) < 2:
            return 1, prod(self.shape)
        rows = self.shape[0] if self.groups is None else self.groups * self.shape[1]
        return rows, prod(self.shape) // rows if rows else 0

    @property
    def taps(self) -> int:
        """Entries of a kernel: inputs are channels times taps, a channel's taps beside each other."""
        return prod(self.shape[2:])

    def matrix(self, weight: Float[Tensor, "*entries"]) -> Float[Tensor, "*stage row input"]:
        """The matrix of a weight; of weights, stacked along axes before their own."""
        outer = weight.shape[:weight.ndim - len(self.shape)]
        if self.groups is None:
            return weight.reshape(*outer, *self.size)
        apart = weight.unflatten(len(outer), (self.groups, -1))
        return apart.transpose(len(outer) + 1, len(outer) + 2).reshape(*outer, *self.size)

    def shaped(self, matrix: Float[Tensor, "*stage row input"]) -> Float[Tensor, "*entries"]:
        """The weight of a matrix."""
        outer = matrix.shape[:-2]
        if self.groups is None:
            return matrix.reshape(*outer, *self.shape)
        channels, outputs, *kernel = self.shape
        apart = matrix.reshape(*outer, self.groups, outputs, channels // self.groups, *kernel)
        return apart.transpose(len(outer) + 1, len(outer) + 2).reshape(*outer, *self.shape)


def rows_of(module: nn.Module, name: str) -> Rows:
    """The rows of a module's own parameter of that name."""
    shape = module.get_parameter(name).shape
    return Rows(shape, module.groups if isinstance(module, TRANSPOSED) and name == "weight" else None)


def rows_by_name(model: nn.Module) -> dict[str, Rows]:
    """Of every parameter of a model, by all names that its state dict has for it."""
    return {f"{place}.{name}".lstrip("."): rows_of(module, name)
            for place, module in model.named_modules(remove_duplicate=False) for name in module._parameters
            if module._parameters[name] is not None}
