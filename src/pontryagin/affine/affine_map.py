"""An affine map z = W x + b inside a module or a stage: how its rows x, its costates u, W and b are found.

It is computed at every position; groups are independent copies of the same problem. Everything that is made
of it (counts of flops, kinds of step, closed forms, the audit) follows from the shapes of its rows, never
from the name of its type.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

Rows = Shaped[Tensor, "group position input"]
"""Numbers, or indices where inputs are one-hot."""
Matrix = Float[Tensor, "group output input"]
Arguments = tuple[Any, ...]


def first_argument(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
    """The first argument of a call, whether by position or by name; the values of a nested one."""
    return plain(next(iter((*arguments, *named.values())), None))


def plain(value: Any) -> Tensor | None:
    """A tensor; of a nested one its values."""
    if not isinstance(value, Tensor):
        return None
    if not value.is_nested:
        return value
    return value.values() if value.layout == torch.jagged else torch.cat([part.flatten(0, -2)
                                                                          for part in value.unbind()])


def linear_rows(x: Tensor) -> Rows:
    """Of (*position, input)."""
    return x.reshape(1, -1, x.shape[-1])


def same(costate: Tensor) -> Tensor:
    """That of a map whose z is the module's output."""
    return costate


@dataclass(frozen=True, eq=False)
class AffineMap:
    """An affine map of a module, or of a stage's control.

    kind: a word for tables. weight, bias: names of the parameters; the bias None when there is none or when
    it is not added where the map ends. rows: x of some inputs, (group, position, input). matrix, shaped: a
    tensor like the weight as W (group, output, input) and back. outputs: z's costate as rows (group,
    position, output), from the costate of the module's output; None where it cannot be told from that.
    one_hot: the inputs are indices, (group, position, 1), so the second moment is diagonal; padding: the
    index whose entries are no control. inputs: x among the arguments of a call, by position and by name, and
    its output; None: a call that does not end in this map of one x. row_axes: how many of the first axes of x
    number its rows, so that a part of them can be taken; of the others one row alone tells nothing. is_dense:
    z = W x of whole vectors and nothing else, so that a batch of many rows may take the step bounded in the
    operator norm. fits: whether x and the module's output have shapes that the map can have; asked only where
    the map is a guess.

    reaching: (costate of the output, x) to what the costates u at a place of x are multiplied by: rows
    (group, place, output * tap), so that the costate at the place changes by dW, read as (channel, output *
    tap), times these. Needed where a component of x enters several rows, or changed by a function; without it
    inputs are a relabelling of components, and the costate changes by W^T u. taps: of the kernel. joint: all
    groups see the same places, so W is read as (1, group * output) for one of them.
    """

    kind: str
    weight: str
    bias: str | None
    rows: Callable[[Tensor], Rows]
    matrix: Callable[[Tensor], Matrix]
    shaped: Callable[[Matrix], Tensor]
    outputs: Callable[[Tensor], Rows] | None
    one_hot: bool = False
    padding: int | None = None
    inputs: Callable[..., Tensor | None] = first_argument
    row_axes: Callable[[Tensor], int] = lambda x: x.ndim - 1
    is_dense: bool = False
    fits: Callable[[Tensor, Tensor], bool] = lambda x, z: True
    reaching: Callable[[Tensor, Tensor], Rows] | None = None
    taps: int = 1
    joint: bool = False


def dense(module: nn.Module, weight: str = "weight", bias: str | None = None, *, kind: str | None = None,
          inputs: Callable[..., Tensor | None] = first_argument,
          outputs: Callable[[Tensor], Tensor] | None = same, is_dense: bool = True) -> AffineMap:
    """z = W x + b on the last axis, W the module's parameter `weight` of shape (output, *input), b its
    parameter `bias`.

    inputs: x among the arguments of a call (arguments, named, output), of shape (*position, input). outputs:
    from the costate of the module's output to that of z, (*position, output), where the map ends inside the
    module; None where it cannot be told. is_dense: whether many rows may be maximized in the operator norm.
    """
    shape = getattr(module, weight).shape
    ends = None if outputs is None else (lambda u: linear_rows(outputs(u)))
    return AffineMap(kind or type(module).__name__, weight, bias, linear_rows,
                     lambda w: w.reshape(1, w.shape[0], -1), lambda matrix: matrix.reshape(shape),
                     ends, inputs=inputs, is_dense=is_dense,
                     fits=_ends(shape) if outputs is same else lambda x, z: x.shape[:-1] == z.shape[:-1])


def turned(module: nn.Module, weight: str = "weight", bias: str | None = None) -> AffineMap:
    """x W + b with W of (input, output), as the Conv1D of GPT-2."""
    return AffineMap(type(module).__name__, weight, bias, linear_rows, lambda w: w.mT.unsqueeze(0),
                     lambda matrix: matrix.squeeze(0).mT, linear_rows, is_dense=True,
                     fits=_ends(getattr(module, weight).T.shape))


def bias_of(module: nn.Module) -> str | None:
    """The name of a module's bias, if it has one."""
    return "bias" if getattr(module, "bias", None) is not None else None


def _ends(shape: torch.Size) -> Callable[[Tensor, Tensor], bool]:
    """From (..., d) to (..., m), with (m, ..., d) the shape of the weight."""
    return lambda x, z: (x.is_floating_point() and x.shape[:-1] == z.shape[:-1]
                         and x.shape[-1:] == (shape[1:].numel(),) and z.shape[-1:] == shape[:1])
