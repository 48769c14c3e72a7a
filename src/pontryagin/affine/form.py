"""A control that is nothing but the W and b of an affine map: how it becomes matrices, and back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pontryagin.affine.affine_map import AffineMap, Rows
from pontryagin.affine.registry import whole_map

Layout = tuple[tuple[str, torch.Size], ...]
"""Names and shapes of the tensors that a flat control is made of, in order."""
Control = Float[Tensor, "stage control"]
Weights = Float[Tensor, "stage_group output input"]
Biases = Float[Tensor, "stage_group output"]


@dataclass(frozen=True, eq=False)
class AffineForm:
    """Says that g(x, theta) = base(x) + embed(W x + b): x the rows of the map, theta its W and b in the order
    of the layout. Matrices of several stages lie along one axis, the groups of each beside each other."""

    map: AffineMap
    layout: Layout

    @cached_property
    def shape(self) -> torch.Size:
        """(groups, outputs, inputs) of one control."""
        shape = dict(self.layout)[self.map.weight]
        return self.map.matrix(torch.empty(shape, device="meta")).shape

    @property
    def groups(self) -> int:
        """Independent copies in one control."""
        return self.shape[0]

    @property
    def output_features(self) -> int:
        """Of one group."""
        return self.shape[1]

    @property
    def input_features(self) -> int:
        """Of one group."""
        return self.shape[2]

    @property
    def taps(self) -> int:
        """Of the kernel, 1 without one."""
        return self.map.taps

    @property
    def bias(self) -> bool:
        """Whether there is a b."""
        return self.map.bias is not None

    @property
    def reach(self) -> int:
        """Costates that reach a place."""
        return self.shape[1] * (self.groups if self.map.joint else self.map.taps)

    def rows(self, state: Tensor) -> Rows:
        """x at every sample and position."""
        return self.map.rows(state)

    def outputs(self, costate: Tensor) -> Rows:
        """u, the costate at z, from that of g."""
        assert self.map.outputs is not None
        return self.map.outputs(costate)

    def matrices(self, control: Control) -> tuple[Weights, Biases]:
        """W and b; b = 0 when the map has none."""
        parts = dict(zip((name for name, _ in self.layout), control.split(
            [prod(shape) for _, shape in self.layout], -1), strict=True))
        shapes = dict(self.layout)
        weights = torch.cat([self.map.matrix(one.view(shapes[self.map.weight]))
                             for one in parts[self.map.weight]])
        if self.map.bias is None:
            return weights, weights.new_zeros(weights.shape[:2])
        return weights, parts[self.map.bias].reshape(len(weights), -1)

    def control(self, weights: Weights, biases: Biases) -> Control:
        """The control vectors that these are the matrices of."""
        apart = weights.unflatten(0, (-1, self.groups))
        parts = {self.map.weight: torch.stack([self.map.shaped(one).flatten() for one in apart])}
        if self.map.bias is not None:
            parts[self.map.bias] = biases.reshape(len(apart), -1)
        return torch.cat([parts[name] for name, _ in self.layout], -1)

    def by_channel(self, weights: Weights) -> Float[Tensor, "_ channel reach"]:
        """W as (channel, output * tap), W^T where there is one tap; of a joint map as (1, group * output)."""
        if self.map.joint:
            return weights.reshape(-1, 1, self.groups * self.shape[1])
        return weights.unflatten(-1, (-1, self.map.taps)).transpose(-3, -2).flatten(-2)

    def by_output(self, channels: Float[Tensor, "_ channel reach"]) -> Weights:
        """The inverse of by_channel."""
        if self.map.joint:
            return channels.reshape(-1, *self.shape[1:])
        return channels.unflatten(-1, (-1, self.map.taps)).transpose(-3, -2).flatten(-2)

    def by_stage(self, values: Float[Tensor, " stage_group"]) -> Float[Tensor, " stage"]:
        """Sums over the groups of each stage."""
        return values if self.groups == 1 else values.view(-1, self.groups).sum(1)


def form_of(module: nn.Module, layout: Layout) -> AffineForm | None:
    """Of a module's parameters; None where it is not known to be an affine map of its argument."""
    found = whole_map(module) if layout else None
    return None if found is None else AffineForm(found, layout)


def form_on(width: int, inputs: Callable[[Tensor], Tensor], outputs: Callable[[Tensor], Tensor],
            layout: Layout) -> AffineForm:
    """Of a function that maps vectors x = inputs(state) of a width to as many outputs, whose costates
    outputs(costate) cuts out: theta is W by rows, then b."""
    rows = (lambda x: inputs(x).reshape(1, -1, width), lambda u: outputs(u).reshape(1, -1, width))
    return AffineForm(AffineMap("affine", "weight", "bias", rows[0], lambda w: w.reshape(1, width, width),
                                lambda matrix: matrix.reshape(width, width), rows[1]), layout)
