"""Convolutions, plain and transposed: patches are the rows that W multiplies."""

from itertools import product
from math import prod
from typing import Any

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vjp

from pontryagin.affine.affine_map import AffineMap, Matrix, Rows, bias_of
from pontryagin.affine.registry import register

Patches = Float[Tensor, "position feature"]


def _convolution(module: Any) -> list[AffineMap]:
    """z = W patch + b at every position, W of (output, channel * tap); W of each group by itself."""
    groups, shape = module.groups, module.weight.shape
    return [AffineMap(f"Conv{len(module.kernel_size)}d", "weight", bias_of(module),
                      lambda x: _by_group(patches(x, module), groups),
                      lambda w: w.reshape(groups, w.shape[0] // groups, -1),
                      lambda matrix: matrix.reshape(shape),
                      lambda u: _by_group(_positions_first(u, module), groups),
                      row_axes=lambda x: int(x.ndim == len(module.kernel_size) + 2),
                      fits=lambda x, z: covers(module, x, z),
                      reaching=lambda u, x: _reaching(u, x, module), taps=prod(module.kernel_size))]


def covers(module: Any, x: Tensor, z: Tensor) -> bool:
    """Whether the kernel of a convolution lies on x (of a transposed one: on z) as often as the other side
    has positions."""
    dims = len(module.kernel_size)
    if x.ndim != z.ndim or x.ndim not in (dims + 1, dims + 2) or not x.is_floating_point():
        return False
    x, z = _batched(x, module), _batched(z, module)
    if (x.shape[1], z.shape[1]) != (module.in_channels, module.out_channels) or len(x) != len(z):
        return False
    under, other = (z, x) if module.transposed else (x, z)
    padding = [0] * dims if isinstance(module.padding, str) or module.transposed else module.padding
    reach = [dilation * (size - 1) + 1
             for size, dilation in zip(module.kernel_size, module.dilation, strict=True)]
    if any(size + 2 * pad < need for size, pad, need in zip(under.shape[2:], padding, reach, strict=True)):
        return False
    rows = _touched(z[:1], module) if module.transposed else patches(x[:1], module)
    return len(rows) == other[0, 0].numel()


def patches(x: Tensor, module: Any) -> Patches:
    """The inputs of each output position, in the order of the flattened weight (channel, *kernel)."""
    return _unfolded(_padded(_batched(x, module), module), module, module.stride)


def _padded(x: Tensor, module: Any) -> Tensor:
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(x, module._reversed_padding_repeated_twice, mode=mode)


def _unfolded(x: Tensor, module: Any, stride: tuple[int, ...]) -> Patches:
    dims = x.ndim - 2
    for dim, (size, step,
              dilation) in enumerate(zip(module.kernel_size, stride, module.dilation, strict=True)):
        x = x.unfold(dim + 2, dilation * (size - 1) + 1, step)[..., ::dilation]
    return x.permute(0, *range(2, 2 + dims), 1,
                     *range(2 + dims, 2 + 2 * dims)).flatten(dims + 1).flatten(0, dims)


def _batched(x: Tensor, module: Any) -> Tensor:
    return x if x.ndim == len(module.kernel_size) + 2 else x.unsqueeze(0)


def _positions_first(x: Tensor, module: Any) -> Float[Tensor, "position channel"]:
    x = _batched(x, module)
    return x.flatten(2).mT.reshape(-1, x.shape[1])


def _by_group(rows: Patches, groups: int) -> Rows:
    return rows.unflatten(1, (groups, -1)).transpose(0, 1)


def _reaching(costate: Tensor, x: Tensor, module: Any) -> Rows:
    """For every place of x the costates u that reach it, by output, then by tap: zero where a tap meets no
    position."""
    costate, x = _batched(costate, module), _batched(x, module)
    template = x[:, :1].expand(-1, costate.shape[1] * prod(module.kernel_size), *x.shape[2:])
    padded, back, *_ = vjp(lambda value: _padded(value, module), template)
    canvas = costate.new_zeros(*costate.shape[:2], prod(module.kernel_size), *padded.shape[2:])
    for number, tap in enumerate(product(*map(range, module.kernel_size))):
        place = canvas[:, :, number]
        for dim, (t, dilation, step) in enumerate(zip(tap, module.dilation, module.stride, strict=True)):
            place = place.narrow(dim + 2, t * dilation, step * (costate.shape[dim + 2] - 1) + 1)
            place = place[(slice(None),) * (dim + 2) + (slice(None, None, step),)]
        place.copy_(costate)
    reached = back(canvas.flatten(1, 2))[0]
    return _by_group(reached.flatten(2).mT.reshape(-1, reached.shape[1]), module.groups)


def _transposed(module: Any) -> list[AffineMap]:
    """W x at each input position, before the overlapping outputs are added up; the bias comes after, so it is
    another map."""
    groups, dims, shape = module.groups, len(module.kernel_size), module.weight.shape

    def matrix(weight: Tensor) -> Matrix:  # (input, output / groups, *kernel)
        return weight.reshape(groups, weight.shape[0] // groups, -1).mT

    maps = [AffineMap(f"ConvTranspose{dims}d", "weight", None,
                      lambda x: _by_group(_positions_first(x, module), groups), matrix,
                      lambda value: value.mT.reshape(shape),
                      lambda u: _by_group(_touched(u, module), groups),
                      row_axes=lambda x: int(x.ndim == dims + 2), fits=lambda x, z: covers(module, x, z))]
    return [*maps, _shift(module)] if module.bias is not None else maps


def _touched(u: Tensor, module: Any) -> Patches:
    """What each input position of a transposed convolution touches: the costates under its kernel."""
    u = _batched(u, module)
    # output_padding: only zeros of W x
    beyond = zip(reversed(module.padding), reversed(module.output_padding), strict=True)
    u = F.pad(u, [pad for padding, output in beyond for pad in (padding, padding - output)])
    return _unfolded(u, module, module.stride)


def _shift(module: Any) -> AffineMap:
    """A bias alone: z_c = b_c * 1, a group for each channel."""
    count = module.bias.numel()
    return AffineMap("shift", "bias", None, lambda x: x.new_ones(count, 1, 1), lambda b: b.reshape(-1, 1, 1),
                     lambda matrix: matrix.reshape(count),
                     lambda u: _positions_first(u, module).mT.unsqueeze(2), row_axes=lambda x: 0)


def _whole_transposed(module: Any) -> AffineMap:
    """A transposed convolution as W patch + b at every output position: x with zeros between its entries, the
    kernel turned round."""
    groups, dims, shape = module.groups, len(module.kernel_size), module.weight.shape
    taps, kernel = prod(module.kernel_size), tuple(range(-dims, 0))

    def rows(x: Tensor) -> Rows:
        x = _batched(x, module)
        sizes = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], module.stride, strict=True)]
        spread = x.new_zeros(*x.shape[:2], *sizes)
        spread[(slice(None),) * 2 + tuple(slice(None, None, step) for step in module.stride)] = x
        edges = zip(*(reversed(each) for each in (module.kernel_size, module.dilation, module.padding,
                                                  module.output_padding)), strict=True)
        pads = [pad for size, dilation, padding, extra in edges
                for pad in (dilation * (size - 1) - padding, dilation * (size - 1) - padding + extra)]
        return _by_group(_unfolded(F.pad(spread, pads), module, (1,) * dims), groups)

    def matrix(weight: Tensor) -> Matrix:
        # group, output, input, *kernel
        turned = weight.flip(kernel).unflatten(0, (groups, -1)).transpose(1, 2)
        return turned.flatten(2)

    def shaped(value: Matrix) -> Tensor:
        apart = value.unflatten(2, (-1, *module.kernel_size)).transpose(1, 2)
        return apart.reshape(shape).flip(kernel)

    def reaching(costate: Tensor, x: Tensor) -> Rows:
        reached = _by_group(_touched(costate, module), groups)
        return reached.unflatten(2, (-1, taps)).flip(3).flatten(2)

    return AffineMap(f"ConvTranspose{dims}d", "weight", bias_of(module), rows, matrix, shaped,
                     lambda u: _by_group(_positions_first(u, module), groups), reaching=reaching, taps=taps)


for _plain in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
    register(_plain, _convolution, computed_by=("forward", "_conv_forward"))
for _turned in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
    register(_turned, _transposed, whole=_whole_transposed)
