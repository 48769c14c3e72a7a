"""Convolutions as affine stages: patches are the inputs that the weight multiplies."""

from dataclasses import dataclass
from functools import cache

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pontryagin.problem.affine import AffineForm

Pair = tuple[int, int]


def convolution_form(layer: nn.Conv1d | nn.Conv2d) -> AffineForm | None:
    """z = W patch + b at every position, W of (output, channel * kernel); None for groups, padding modes and
    named paddings."""
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    flat = isinstance(layer, nn.Conv1d)
    patches = _patches(*(_pair(each, flat, neutral) for each, neutral in (
        (layer.kernel_size, 1), (layer.stride, 1), (layer.padding, 0), (layer.dilation, 1))))
    return AffineForm(layer.in_channels * patches.taps, layer.out_channels, patches.inputs, patches.adjoint,
                      bias=layer.bias is not None, taps=patches.taps, reaching=patches.reaching)


@dataclass(frozen=True)
class Patches:
    """The patches of a convolution over the last two axes (the last alone: a kernel of height 1)."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @property
    def taps(self) -> int:
        """Entries of the kernel."""
        return self.kernel[0] * self.kernel[1]

    def inputs(self, state: Float[Tensor, "sample channel *place"]) -> Float[Tensor,
                                                                             "sample position feature"]:
        """The patch at every position; features by channel, then by tap."""
        return functional.unfold(_image(state), self.kernel, self.dilation, self.padding, self.stride).mT

    def adjoint(self, costate: Float[Tensor, "sample output *position"]) -> Float[Tensor,
                                                                                  "sample position output"]:
        """u at every position."""
        return costate.flatten(2).mT

    def reaching(self, costate: Float[Tensor, "sample output *position"],
                 state: Float[Tensor, "sample channel *place"]) -> Float[Tensor, "sample place reach"]:
        """For every place of x the costates u that reach it, by output, then by tap: zero where a tap meets
        no position.

        With dW as (channel, output * tap), the costate at a place changes by dW times these.
        """
        costate, (height, width) = _image(costate), _image(state).shape[-2:]
        (top, left), (down, right) = self.padding, self.stride
        rows, columns = costate.shape[-2:]
        canvas = costate.new_zeros(*costate.shape[:2], *self.kernel, height + 2 * top, width + 2 * left)
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                first, start = i * self.dilation[0], j * self.dilation[1]
                canvas[:, :, i, j, first:first + down * rows:down,
                       start:start + right * columns:right] = costate
        return canvas[..., top:top + height, left:left + width].reshape(costate.shape[0], -1,
                                                                        height * width).mT


@cache
def _patches(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Patches:
    """One object for equal settings: methods are equal when they are bound to the same one, and equal stages
    are batched."""
    return Patches(kernel, stride, padding, dilation)


def _image(state: Tensor) -> Tensor:
    return state.unsqueeze(-2) if state.ndim == 3 else state


def _pair(value: tuple[int, ...], flat: bool, neutral: int) -> Pair:
    return (neutral, value[0]) if flat else (value[0], value[1])
