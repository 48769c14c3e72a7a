"""Which modules are affine stages, and which features their weights multiply.

An affine stage computes z = W x + b at every position. A layer says how its inputs become rows x (position, d), how its
parameters become W of (group, m, d), and back. Groups are independent copies of the same problem.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

Rows = Float[Tensor, "group position input"]
Matrix = Float[Tensor, "group output input"]


def first_argument(arguments: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """The first argument of a call, whether by position or by name."""
    first = next(iter((*arguments, *named.values())), None)
    return first if isinstance(first, Tensor) else None


@dataclass(frozen=True)
class Layer:
    """An affine stage of a module.

    weight, bias: names of the module's parameters; the bias None when it has none or when it is not added where the stage
    ends. rows: features of some inputs. matrix, shaped: a tensor like the weight as W and back. outputs: z's costate as
    rows (group, position, m), None where it cannot be told from that of the module's output. one_hot: the inputs are
    indices, so A is diagonal. inputs: x among the arguments of a call, by position and by name; None: a call that does not
    end in an affine map of one x.
    """

    kind: str
    weight: str
    bias: str | None
    rows: Callable[[Tensor], Rows]
    matrix: Callable[[Tensor], Matrix]
    shaped: Callable[[Matrix], Tensor]
    outputs: Callable[[Tensor], Rows] | None
    one_hot: bool = False
    inputs: Callable[[tuple[Any, ...], dict[str, Any]], Tensor | None] = first_argument


def layer_of(module: nn.Module) -> list[Layer]:
    """The affine stages of a module itself, not of its children; none when it has no parameters or is not supported."""
    for kind, make in _MAKERS.items():
        if isinstance(module, kind):
            return make(module)
    return []


def _linear(module: nn.Linear) -> list[Layer]:
    return [Layer("Linear", "weight", _bias(module), _linear_rows, _as_is, _back(module.weight), _linear_rows)]


def _linear_rows(x: Tensor) -> Rows:
    return x.reshape(1, -1, x.shape[-1])


def _as_is(weight: Tensor) -> Matrix:
    return weight.reshape(1, weight.shape[0], -1)


def _back(weight: Tensor) -> Callable[[Matrix], Tensor]:
    shape = weight.shape
    return lambda matrix: matrix.reshape(shape)


def _convolution(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[Layer]:
    groups = module.groups

    def rows(x: Tensor) -> Rows:
        return _by_group(patches(x, module), groups)

    def outputs(u: Tensor) -> Rows:
        return _by_group(_positions_first(u, module), groups)

    return [Layer(type(module).__name__, "weight", _bias(module), rows, lambda w: w.reshape(groups, w.shape[0] // groups, -1),
                  _back(module.weight), outputs)]


def patches(x: Tensor, module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Float[Tensor, "position feature"]:
    """The inputs of each output position, in the order of the flattened weight (channel, *kernel)."""
    x = _batched(x, module)
    dims = x.ndim - 2
    if module.padding_mode != "zeros":
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
    else:
        x = F.pad(x, module._reversed_padding_repeated_twice)
    for dim, (size, stride, dilation) in enumerate(zip(module.kernel_size, module.stride, module.dilation, strict=True)):
        x = x.unfold(dim + 2, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return x.permute(0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims)).flatten(dims + 1).flatten(0, dims)


def _batched(x: Tensor, module: Any) -> Tensor:
    return x if x.ndim == len(module.kernel_size) + 2 else x.unsqueeze(0)


def _positions_first(x: Tensor, module: Any) -> Float[Tensor, "position channel"]:
    x = _batched(x, module)
    return x.flatten(2).mT.reshape(-1, x.shape[1])


def _by_group(rows: Float[Tensor, "position feature"], groups: int) -> Rows:
    return rows.unflatten(1, (groups, -1)).transpose(0, 1)


def _transposed(module: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> list[Layer]:
    """W x at each input position, before the overlapping outputs are added up; the bias comes after, so it is another stage."""
    groups = module.groups

    def rows(x: Tensor) -> Rows:
        return _by_group(_positions_first(x, module), groups)

    def matrix(weight: Tensor) -> Matrix:  # (input, output / groups, *kernel)
        return weight.reshape(groups, weight.shape[0] // groups, -1).mT

    def shaped(value: Matrix) -> Tensor:
        return value.mT.reshape(module.weight.shape)

    def outputs(u: Tensor) -> Rows:
        return _by_group(_unfolded(u, module), groups)

    stages = [Layer(type(module).__name__, "weight", None, rows, matrix, shaped, outputs)]
    return stages + [_shift(module)] if module.bias is not None else stages


def _unfolded(u: Tensor, module: Any) -> Float[Tensor, "position feature"]:
    """What each input position of a transposed convolution touches: the costates under its kernel."""
    u = _batched(u, module)
    dims = u.ndim - 2
    beyond = zip(reversed(module.padding), reversed(module.output_padding), strict=True)  # output_padding: only zeros of W x
    u = F.pad(u, [pad for padding, output in beyond for pad in (padding, padding - output)])
    for dim, (size, stride, dilation) in enumerate(zip(module.kernel_size, module.stride, module.dilation, strict=True)):
        u = u.unfold(dim + 2, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return u.permute(0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims)).flatten(dims + 1).flatten(0, dims)


def _shift(module: Any) -> Layer:
    """A bias alone: z_c = b_c * 1, a group for each channel."""
    return Layer("shift", "bias", None, lambda x: x.new_ones(module.bias.numel(), 1, 1), lambda b: b.reshape(-1, 1, 1),
                 _back(module.bias), lambda u: _positions_first(u, module).mT.unsqueeze(2))


def _embedding(module: nn.Embedding) -> list[Layer]:
    if module.max_norm is not None or module.sparse or module.scale_grad_by_freq:
        return []
    return [Layer("Embedding", "weight", None, lambda x: x.reshape(1, -1, 1), lambda w: w.mT.unsqueeze(0),
                  lambda matrix: matrix.squeeze(0).mT.reshape(module.weight.shape), _linear_rows, one_hot=True)]


def _self_attention(module: nn.MultiheadAttention) -> list[Layer]:
    """The joint map to queries, keys and values where all three are made of the same x; out_proj is never called."""
    if module.in_proj_weight is None:
        return []

    def shared(arguments: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
        given = dict(zip(("query", "key", "value"), arguments, strict=False)) | named
        return given["query"] if given["query"] is given["key"] and given["query"] is given["value"] else None

    bias = "in_proj_bias" if module.in_proj_bias is not None else None
    return [Layer("MultiheadAttention", "in_proj_weight", bias, _linear_rows, _as_is, _back(module.in_proj_weight), None,
                  inputs=shared)]


def _normalization(normalize: Callable[[Any, Tensor], Tensor], channel: int) -> Callable[[nn.Module], list[Layer]]:
    """z_c = gamma_c xhat_c + beta_c: a group of one input and one output for each component."""

    def make(module: nn.Module) -> list[Layer]:
        weight = getattr(module, "weight", None)
        if weight is None:
            return []

        def split(value: Tensor) -> Rows:  # components first, all positions after
            if channel == 1:
                return value.transpose(0, 1).reshape(weight.numel(), -1, 1)
            return value.reshape(-1, weight.numel()).mT.unsqueeze(2)

        return [Layer(type(module).__name__, "weight", _bias(module), lambda x: split(normalize(module, x)),
                      lambda w: w.reshape(-1, 1, 1), _back(weight), split)]

    return make


def _batch_normalized(module: Any, x: Tensor) -> Tensor:
    if module.training or module.running_mean is None:
        return F.batch_norm(x, None, None, training=True, eps=module.eps)
    return F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)


def _bias(module: nn.Module) -> str | None:
    return "bias" if getattr(module, "bias", None) is not None else None


_MAKERS: dict[type[nn.Module], Callable[..., list[Layer]]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution, nn.Conv2d: _convolution, nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _transposed, nn.ConvTranspose2d: _transposed, nn.ConvTranspose3d: _transposed,
    nn.Embedding: _embedding,
    nn.MultiheadAttention: _self_attention,
    nn.LayerNorm: _normalization(lambda m, x: F.layer_norm(x, m.normalized_shape, eps=m.eps), -1),
    nn.RMSNorm: _normalization(lambda m, x: F.rms_norm(x, m.normalized_shape, eps=m.eps), -1),
    nn.GroupNorm: _normalization(lambda m, x: F.group_norm(x, m.num_groups, eps=m.eps), 1),
    nn.modules.batchnorm._BatchNorm: _normalization(_batch_normalized, 1),
}
