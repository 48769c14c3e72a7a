"""Which modules are affine stages, and which features their weights multiply.

An affine stage computes z = W x + b at every position. A layer says how its inputs become rows x (position,
d), how its parameters become W of (group, m, d), and back. Groups are independent copies of the same problem.

A module is taken for an affine map without a question only if its class computes that map itself: if it runs
the forward of a class that is known. What else looks like one by its parameters (subclasses with a forward of
their own, a matrix with a vector, a scale) is a guess, or a choice of guesses: the first look tells whether
sum u x^T is the gradient (capture.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from pontryagin.optim.recurrent import rows_of
from pontryagin.optim.thinning import thinned

Rows = Float[Tensor, "group position input"]
Matrix = Float[Tensor, "group output input"]
Arguments = tuple[Any, ...]


def first_argument(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
    """The first argument of a call, whether by position or by name; the values of a nested one."""
    return _plain(next(iter((*arguments, *named.values())), None))


def _plain(value: Any) -> Tensor | None:
    if not isinstance(value, Tensor):
        return None
    if not value.is_nested:
        return value
    return value.values() if value.layout == torch.jagged else torch.cat([part.flatten(0, -2)
                                                                          for part in value.unbind()])


@dataclass(frozen=True)
class Layer:
    """An affine stage of a module.

    weight, bias: names of the module's parameters; the bias None when it has none or when it is not added
    where the stage ends. rows: features of some inputs. matrix, shaped: a tensor like the weight as W and
    back. outputs: z's costate as rows (group, position, m), None where it cannot be told from that of the
    module's output. one_hot: the inputs are indices, so A is diagonal. inputs: x among the arguments of a
    call, by position and by name, and its output; None: a call that does not end in this map of one x.
    row_axes: how many of the first axes of x number its rows, so that a part of them can be taken; of the
    others one row alone tells nothing. is_dense: z = W x of whole vectors and nothing else, so that a batch
    of many rows may take the step bounded in the operator norm. fits: whether x and the module's output have
    shapes that the map can have; asked only where the map is a guess.
    """

    kind: str
    weight: str
    bias: str | None
    rows: Callable[[Tensor], Rows]
    matrix: Callable[[Tensor], Matrix]
    shaped: Callable[[Matrix], Tensor]
    outputs: Callable[[Tensor], Rows] | None
    one_hot: bool = False
    inputs: Callable[..., Tensor | None] = first_argument
    row_axes: Callable[[Tensor], int] = lambda x: x.ndim - 1
    is_dense: bool = False
    fits: Callable[[Tensor, Tensor], bool] = lambda x, z: True


@dataclass(frozen=True)
class Map:
    """The map that a parameter of a module belongs to: a layer, or several that it may be. certain: no look
    has to tell."""

    alternatives: tuple[Layer, ...]
    certain: bool

    @property
    def weight(self) -> str:
        """The name of the parameter."""
        return self.alternatives[0].weight


def layer_of(module: nn.Module) -> list[Layer]:
    """The affine stages that are certain of a module itself, not of its children; none when it has no
    parameters or is not known."""
    return [each.alternatives[0] for each in maps_of(module) if each.certain]


def maps_of(module: nn.Module) -> list[Map]:
    """The maps that a module itself computes, or may compute."""
    kind, certain = _kind_of(module), is_certain(module)
    if kind is None:
        return _guesses(module)
    layers = _KINDS[kind][0](module)
    if kind is nn.MultiheadAttention:
        return [Map((first, *rest), True) for first, *rest in layers] if certain else []
    if certain:
        return [Map((layer,), True) for layer in layers]
    # normalized in another way, perhaps
    if layers and layers[0].matrix(getattr(module, layers[0].weight)).shape[1:] == (1, 1):
        return [Map((layers[0], *_scale_guesses(module, layers[0].weight, layers[0].bias)), False)]
    return [Map((layer,), False) for layer in layers if layer.outputs is not None and layer.kind != "shift"]


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's own parameters, not its children's; of a scripted one too."""
    return dict(module.named_parameters(recurse=False, remove_duplicate=False))


def is_certain(module: nn.Module) -> bool:
    """Whether a module runs the forward of a known class, as it is."""
    kind = _kind_of(module)
    return kind is not None and not any(name in vars(module)
                                        or getattr(type(module), name, None) is not getattr(kind, name)
                                        for name in _KINDS[kind][1])


def _kind_of(module: nn.Module) -> type[nn.Module] | None:
    return next((kind for kind in _KINDS if isinstance(module, kind)), None)


def _linear(module: nn.Linear) -> list[Layer]:
    return [_dense(module, "Linear", "weight", _bias(module), is_dense=True)]


def _dense(module: nn.Module, kind: str, weight: str, bias: str | None,
           inputs: Callable[..., Tensor | None] = first_argument, outputs: bool = True,
           is_dense: bool = False) -> Layer:
    return Layer(kind, weight, bias, _linear_rows, _as_is, _back(getattr(module, weight)),
                 _linear_rows if outputs else None, inputs=inputs, is_dense=is_dense,
                 fits=_ends(getattr(module, weight).shape))


def _ends(shape: torch.Size) -> Callable[[Tensor, Tensor], bool]:
    """From (..., d) to (..., m), with (m, ..., d) the shape of the weight."""
    return lambda x, z: (x.is_floating_point() and x.shape[:-1] == z.shape[:-1]
                         and x.shape[-1:] == (shape[1:].numel(),) and z.shape[-1:] == shape[:1])


def _linear_rows(x: Tensor) -> Rows:
    return x.reshape(1, -1, x.shape[-1])


def _as_is(weight: Tensor) -> Matrix:
    return weight.reshape(1, weight.shape[0], -1)


def _back(weight: Tensor) -> Callable[[Matrix], Tensor]:
    shape = weight.shape
    return lambda matrix: matrix.reshape(shape)


def _turned(module: nn.Module, weight: str, bias: str | None) -> Layer:
    """x W + b with W of (input, output), as the Conv1D of GPT-2."""
    return Layer(type(module).__name__, weight, bias, _linear_rows, lambda w: w.mT.unsqueeze(0),
                 lambda matrix: matrix.squeeze(0).mT, _linear_rows, is_dense=True,
                 fits=_ends(getattr(module, weight).T.shape))


def _bilinear(module: nn.Bilinear) -> list[Layer]:
    """z_k = x^T W_k y + b_k: linear in the products of the entries of x and y."""

    def products(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
        given = dict(zip(("input1", "input2"), arguments, strict=False)) | named
        if not {"input1", "input2"} <= given.keys():
            return None
        return (given["input1"].detach().unsqueeze(-1) * given["input2"].detach().unsqueeze(-2)).flatten(-2)

    return [_dense(module, "Bilinear", "weight", _bias(module), products)]


def _convolution(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[Layer]:
    groups = module.groups

    def rows(x: Tensor) -> Rows:
        return _by_group(patches(x, module), groups)

    def outputs(u: Tensor) -> Rows:
        return _by_group(_positions_first(u, module), groups)

    return [Layer(f"Conv{len(module.kernel_size)}d", "weight", _bias(module), rows,
                  lambda w: w.reshape(groups, w.shape[0] // groups, -1), _back(module.weight), outputs,
                  row_axes=lambda x: int(x.ndim == len(module.kernel_size) + 2), fits=lambda x,
                  z: _covers(module, x, z))]


def _covers(module: Any, x: Tensor, z: Tensor) -> bool:
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
    rows = _unfolded(z[:1], module) if module.transposed else patches(x[:1], module)
    return len(rows) == other[0, 0].numel()


def patches(x: Tensor, module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Float[Tensor, "position feature"]:
    """The inputs of each output position, in the order of the flattened weight (channel, *kernel)."""
    x = _batched(x, module)
    dims = x.ndim - 2
    if module.padding_mode != "zeros":
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
    else:
        x = F.pad(x, module._reversed_padding_repeated_twice)
    for dim, (size, stride,
              dilation) in enumerate(zip(module.kernel_size, module.stride, module.dilation, strict=True)):
        x = x.unfold(dim + 2, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return x.permute(0, *range(2, 2 + dims), 1,
                     *range(2 + dims, 2 + 2 * dims)).flatten(dims + 1).flatten(0, dims)


def _batched(x: Tensor, module: Any) -> Tensor:
    return x if x.ndim == len(module.kernel_size) + 2 else x.unsqueeze(0)


def _positions_first(x: Tensor, module: Any) -> Float[Tensor, "position channel"]:
    x = _batched(x, module)
    return x.flatten(2).mT.reshape(-1, x.shape[1])


def _by_group(rows: Float[Tensor, "position feature"], groups: int) -> Rows:
    return rows.unflatten(1, (groups, -1)).transpose(0, 1)


def _transposed(module: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> list[Layer]:
    """W x at each input position, before the overlapping outputs are added up; the bias comes after, so it is
    another stage."""
    groups, dims = module.groups, len(module.kernel_size)

    def rows(x: Tensor) -> Rows:
        return _by_group(_positions_first(x, module), groups)

    def matrix(weight: Tensor) -> Matrix:  # (input, output / groups, *kernel)
        return weight.reshape(groups, weight.shape[0] // groups, -1).mT

    def shaped(value: Matrix) -> Tensor:
        return value.mT.reshape(module.weight.shape)

    def outputs(u: Tensor) -> Rows:
        return _by_group(_unfolded(u, module), groups)

    stages = [Layer(f"ConvTranspose{dims}d", "weight", None, rows, matrix, shaped, outputs,
                    row_axes=lambda x: int(x.ndim == dims + 2), fits=lambda x, z: _covers(module, x, z))]
    return stages + [_shift(module)] if module.bias is not None else stages


def _unfolded(u: Tensor, module: Any) -> Float[Tensor, "position feature"]:
    """What each input position of a transposed convolution touches: the costates under its kernel."""
    u = _batched(u, module)
    dims = u.ndim - 2
    # output_padding: only zeros of W x
    beyond = zip(reversed(module.padding), reversed(module.output_padding), strict=True)
    u = F.pad(u, [pad for padding, output in beyond for pad in (padding, padding - output)])
    for dim, (size, stride,
              dilation) in enumerate(zip(module.kernel_size, module.stride, module.dilation, strict=True)):
        u = u.unfold(dim + 2, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return u.permute(0, *range(2, 2 + dims), 1,
                     *range(2 + dims, 2 + 2 * dims)).flatten(dims + 1).flatten(0, dims)


def _shift(module: Any) -> Layer:
    """A bias alone: z_c = b_c * 1, a group for each channel."""
    return Layer("shift", "bias", None, lambda x: x.new_ones(module.bias.numel(), 1, 1),
                 lambda b: b.reshape(-1, 1, 1), _back(module.bias),
                 lambda u: _positions_first(u, module).mT.unsqueeze(2), row_axes=lambda x: 0)


def _embedding(module: nn.Embedding) -> list[Layer]:
    if module.max_norm is not None or module.sparse or module.scale_grad_by_freq:
        return []

    def indices(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
        x = first_argument(arguments, named)
        return x if x is not None and x.dtype in (torch.int64, torch.int32) else None

    return [Layer("Embedding", "weight", None, lambda x: x.reshape(1, -1, 1), lambda w: w.mT.unsqueeze(0),
                  lambda matrix: matrix.squeeze(0).mT.reshape(module.weight.shape), _linear_rows,
                  one_hot=True, inputs=indices, row_axes=lambda x: x.ndim,
                  fits=lambda x, z: z.shape == (*x.shape, module.embedding_dim)
                  and bool(x.numel() and x.min() >= 0 and x.max() < module.num_embeddings))]


_ATTENDED = ("query", "key", "value")


def _attention(module: nn.MultiheadAttention) -> list[list[Layer]]:
    """The maps to queries, keys and values, each with its alternatives; out_proj is never called.

    Where all three are made of one x, it is one map to all of them; else each is a map of its own, a group
    where the three weights are one parameter. Where keys and values have sizes of their own the weights are
    three parameters.
    """
    if module.in_proj_weight is None:  # in_proj_bias is one parameter over three stages: left to AdamW
        return [[_dense(module, "MultiheadAttention", f"{name[0]}_proj_weight", None, _attended(number),
                        outputs=False)]
                for number, name in enumerate(_ATTENDED)]
    bias = "in_proj_bias" if module.in_proj_bias is not None else None
    own = _dense(module, "MultiheadAttention", "in_proj_weight", bias, _shared, outputs=False)
    cross = Layer("MultiheadAttention", "in_proj_weight", bias, lambda x: x,
                  lambda w: w.reshape(3, -1, w.shape[-1]), _back(module.in_proj_weight), None, inputs=_three,
                  row_axes=lambda x: 0)
    return [[own, cross]]


def _given(arguments: Arguments, named: dict[str, Any]) -> tuple[Any, ...]:
    """Queries, keys and values; None for those that are not known."""
    given = dict(zip(_ATTENDED, arguments, strict=False)) | named
    return tuple(given.get(name) for name in _ATTENDED)


def _attended(number: int) -> Callable[..., Tensor | None]:
    return lambda arguments, named, output=None: _plain(_given(arguments, named)[number])


def _shared(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
    query, key, value = _given(arguments, named)
    return _plain(query) if query is key and query is value else None


_OF_THREE = 512


def _three(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
    """As many rows of queries, keys and values, (3, row, input): those that there are fewer of come several
    times."""
    parts = [_plain(each) for each in _given(arguments, named)]
    if any(part is None or not part.numel() for part in parts) or len({id(part) for part in parts}) == 1:
        return None
    rows = [part.detach().reshape(-1, part.shape[-1]) for part in parts if part is not None]
    count = min(max(len(each) for each in rows), _OF_THREE)
    return torch.stack([each[(torch.arange(count, device=each.device) * len(each)) // count]
                        if len(each) <= count else thinned(each, count) for each in rows])


def _cell(module: nn.RNNCellBase) -> list[Layer]:
    """The gates' maps of the input and of the hidden state."""

    def hidden(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
        given = dict(zip(("input", "hx"), arguments, strict=False)) | named
        state = given.get("hx")
        return _plain(state[0] if isinstance(state, tuple) else state)

    ends = {"ih": first_argument, "hh": hidden}
    return [_dense(module, type(module).__name__, f"weight_{end}", f"bias_{end}" if module.bias else None,
                   inputs, outputs=False)
            for end, inputs in ends.items()]


def _recurrent(module: nn.RNNBase) -> list[Layer]:
    """Of every layer and direction the gates' maps of its inputs and of its hidden states."""
    found = []
    for layer in range(module.num_layers):
        for end in ("", "_reverse")[:2 if module.bidirectional else 1]:
            for name, hidden in (("ih", False), ("hh", True)):
                bias = f"bias_{name}_l{layer}{end}" if module.bias else None
                found.append(_dense(module, type(module).__name__, f"weight_{name}_l{layer}{end}", bias,
                                    rows_of(module, layer, bool(end), hidden), outputs=False))
    return found


Normalize = Callable[[Any, Tensor], Tensor]


def _normalization(normalize: Normalize, channel: int, axes: Callable[[Any, Tensor], int] | None = None
                   ) -> Callable[[nn.Module], list[Layer]]:
    """z_c = gamma_c xhat_c + beta_c: a group of one input and one output for each component."""

    def make(module: nn.Module) -> list[Layer]:
        if getattr(module, "weight", None) is None:
            return []
        return [_scale(module, type(module).__name__, "weight", _bias(module), normalize, channel, axes)]

    return make


def _scale(module: nn.Module, kind: str, weight: str, bias: str | None, normalize: Normalize, channel: int,
           axes: Callable[[Any, Tensor], int] | None = None) -> Layer:
    count, rows_of = getattr(module, weight).numel(), axes

    def split(value: Tensor) -> Rows:  # components first, all positions after
        if channel == 1:
            return value.transpose(0, 1).reshape(count, -1, 1)
        return value.reshape(-1, count).mT.unsqueeze(2)

    return Layer(kind, weight, bias, lambda x: split(normalize(module, x)), lambda w: w.reshape(-1, 1, 1),
                 _back(getattr(module, weight)), split,
                 row_axes=(lambda x: 1) if rows_of is None else lambda x: rows_of(module, x),
                 fits=lambda x, z: _is_scaled(x, z, channel, getattr(module, weight).shape))


def _is_scaled(x: Tensor, z: Tensor, channel: int, shape: torch.Size) -> bool:
    if x.shape != z.shape or x.ndim < 2 or not x.is_floating_point():
        return False
    return x.shape[1:2] == shape if channel == 1 else x.shape[-len(shape):] == shape


def _before(module: Any, x: Tensor) -> int:
    """The axes before those that are normalized."""
    return x.ndim - len(module.normalized_shape)


def _batch_normalized(module: Any, x: Tensor) -> Tensor:
    if module.training or module.running_mean is None:
        return F.batch_norm(x, None, None, training=True, eps=module.eps)
    return F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)


def _instance_norm(module: Any) -> list[Layer]:
    """Also of one image, without an axis of samples."""

    def batched(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
        x = first_argument(arguments, named)
        return x.unsqueeze(0) if x is not None and x.ndim == module._get_no_batch_dim() else x

    return [replace(layer, inputs=batched) for layer in _normalization(_instance_normalized, 1)(module)]


def _instance_normalized(module: Any, x: Tensor) -> Tensor:
    if module.training or not module.track_running_stats:
        return F.instance_norm(x, eps=module.eps)
    return F.instance_norm(x, module.running_mean, module.running_var, use_input_stats=False, eps=module.eps)


def _bias(module: nn.Module) -> str | None:
    return "bias" if getattr(module, "bias", None) is not None else None


def _guesses(module: nn.Module) -> list[Map]:
    """By names and shapes of a module's parameters: a matrix `weight`, or a vector `weight` beside an
    epsilon, alone or with a vector `bias`."""
    own = own_parameters(module)
    if next(module.children(), None) is not None or not {"weight"} <= own.keys() <= {"weight", "bias"}:
        return []
    bias = "bias" if "bias" in own else None
    if bias is not None and own[bias].ndim != 1:
        return []
    if own["weight"].ndim == 2:
        return _matrix_guesses(module, "weight", bias)
    if own["weight"].ndim == 1 and _epsilons(module) and (bias is None
                                                          or own[bias].shape == own["weight"].shape):
        return [Map(_scale_guesses(module, "weight", bias), False)]
    return []


def _scale_guesses(module: nn.Module, weight: str, bias: str | None) -> tuple[Layer, ...]:
    if getattr(module, weight).ndim > 1:
        return ()
    return tuple(_scale(module, type(module).__name__, weight, bias, *normalized)
                 for normalized in _NORMALIZED)


def _matrix_guesses(module: nn.Module, weight: str, bias: str | None) -> list[Map]:
    shape, length = getattr(module, weight).shape, None if bias is None else getattr(module, bias).numel()
    found = []
    if length in (None, shape[0]):
        found.append(_dense(module, type(module).__name__, weight, bias, is_dense=True))
    if length in (None, shape[1]):
        found.append(_turned(module, weight, bias))
    return [Map(tuple(found), False)] if found else []


def _epsilons(module: nn.Module) -> list[float]:
    """What a normalization adds to a variance, under the names that are in use."""
    found = (vars(module).get(name)
             for name in ("eps", "variance_epsilon", "epsilon", "layer_norm_eps", "norm_eps"))
    return [float(value) for value in found if isinstance(value, int | float)]


def _eps(module: Any) -> float:
    return next(iter(_epsilons(module)), 1e-6)


def _last(module: Any, x: Tensor) -> int:
    return x.ndim - 1


def _channels_last(normalize: Normalize) -> Normalize:
    return lambda module, x: normalize(module, x.movedim(1, -1)).movedim(-1, 1)


def _root_mean_square(module: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=_eps(module))


def _standardized(module: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=_eps(module))


_NORMALIZED = ((_root_mean_square, -1, _last), (_standardized, -1, _last),
               (_channels_last(_standardized), 1, None), (_channels_last(_root_mean_square), 1, None))
"""What a scale may be taken of: rows normalized by root mean square or standard deviation, channels last or
first."""

_CONVOLUTION, _FORWARD = ("forward", "_conv_forward"), ("forward",)
_KINDS: dict[type[nn.Module], tuple[Callable[..., list[Any]], tuple[str, ...]]] = {
    nn.Linear: (_linear, _FORWARD),
    nn.Conv1d: (_convolution, _CONVOLUTION), nn.Conv2d: (_convolution, _CONVOLUTION),
    nn.Conv3d: (_convolution, _CONVOLUTION), nn.ConvTranspose1d: (_transposed, _FORWARD),
    nn.ConvTranspose2d: (_transposed, _FORWARD), nn.ConvTranspose3d: (_transposed, _FORWARD),
    nn.Embedding: (_embedding, _FORWARD),
    nn.Bilinear: (_bilinear, _FORWARD),
    nn.MultiheadAttention: (_attention, _FORWARD),
    nn.LSTMCell: (_cell, _FORWARD), nn.GRUCell: (_cell, _FORWARD), nn.RNNCell: (_cell, _FORWARD),
    nn.LSTM: (_recurrent, _FORWARD), nn.GRU: (_recurrent, _FORWARD), nn.RNN: (_recurrent, _FORWARD),
    nn.LayerNorm: (_normalization(lambda m, x: F.layer_norm(x, m.normalized_shape, eps=m.eps), -1, _before),
                   _FORWARD),
    nn.RMSNorm: (_normalization(lambda m, x: F.rms_norm(x, m.normalized_shape, eps=m.eps), -1, _before),
                 _FORWARD),
    nn.GroupNorm: (_normalization(lambda m, x: F.group_norm(x, m.num_groups, eps=m.eps), 1), _FORWARD),
    nn.modules.instancenorm._InstanceNorm: (_instance_norm, _FORWARD),
    nn.modules.batchnorm._BatchNorm: (_normalization(_batch_normalized, 1), _FORWARD),
}
"""By class: its maps, and the methods that compute them."""
