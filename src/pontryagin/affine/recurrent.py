"""The rows that the matrices of a recurrent module multiply: its inputs and its hidden states, step by step
and layer by layer.

torch computes all layers and steps of nn.RNN, LSTM and GRU in one call. The inputs of the first layer and the
states of the last are the module's own inputs and outputs; the others are computed again, of a few sequences,
from the weights as they are.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine.affine_map import AffineMap, Arguments, dense, first_argument, plain
from pontryagin.affine.registry import register
from pontryagin.affine.rows import chosen

_SEQUENCES = 8
"""So many sequences enter the moments at most."""


def _inputs_of(module: nn.RNNBase, layer: int, reverse: bool, hidden: bool) -> Callable[..., Tensor | None]:
    """x of a matrix among the arguments of a call: (position, input) of a few sequences; None for packed or
    unbatched ones.

    hidden: the states that the matrix `weight_hh` multiplies, from the first, given or 0, to the last but
    one; else the inputs of the layer. Between layers dropout is left out.
    """

    def inputs(arguments: tuple[Any, ...], named: dict[str, Any], output: Any = None) -> Tensor | None:
        given = dict(zip(("input", "hx"), arguments, strict=False)) | named
        x = given.get("input")
        if not isinstance(x, Tensor) or x.ndim != 3 or x.is_nested or not x.numel() or module.proj_size:
            return None
        with torch.no_grad():
            return _rows(module, x.detach(), given.get("hx"), layer, reverse, hidden)

    return inputs


def _rows(module: nn.RNNBase, x: Tensor, state: Any, layer: int, reverse: bool, hidden: bool) -> Tensor:
    x = (x.transpose(0, 1) if module.batch_first else x)  # (step, sequence, input)
    count = x.shape[1]
    some = chosen(count, min(count, _SEQUENCES)).to(x.device)
    x, directions = x[:, some], 2 if module.bidirectional else 1
    for number in range(layer + hidden):
        outputs = []
        for turned in range(directions):
            start = _start(module, state, number * directions + turned, x, some)
            outputs.append(_states(module, number, bool(turned), x, start))
        if hidden and number == layer:
            own = outputs[int(reverse)]
            first = _start(module, state, layer * directions + reverse, x, some)[0]
            return torch.cat([own[1:], first] if reverse else [first, own[:-1]]).flatten(0, 1)
        x = torch.cat(outputs, 2)
    return x.flatten(0, 1)


def _start(module: nn.RNNBase, state: Any, number: int, x: Tensor, some: Tensor) -> tuple[Tensor, ...]:
    """The first states (1, sequence, hidden) of a layer and direction: h, and c of an LSTM."""
    parts = state if isinstance(state, tuple) else (state,) * (2 if isinstance(module, nn.LSTM) else 1)
    return tuple(x.new_zeros(1, len(some), module.hidden_size) if part is None else
                 part.detach()[number:number + 1][:, some].to(x.dtype) for part in parts)


def _states(module: nn.RNNBase, layer: int, reverse: bool, x: Tensor, start: tuple[Tensor, ...]) -> Tensor:
    """h of one layer in one direction at all steps, (step, sequence, hidden)."""
    end = f"_l{layer}" + ("_reverse" if reverse else "")
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if module.bias else ("weight_ih", "weight_hh")
    weights = [getattr(module, name + end).detach() for name in names]
    kernel = getattr(torch._VF, module.mode.lower())
    first = start if isinstance(module, nn.LSTM) else start[0]
    x = x.flip(0) if reverse else x
    found = kernel(x.to(weights[0].dtype), first, weights, module.bias, 1, 0.0, False, False, False)[0]
    return found.flip(0) if reverse else found


def _cell(module: nn.RNNCellBase) -> list[AffineMap]:
    """The gates' maps of the input and of the hidden state."""

    def hidden(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
        state = (dict(zip(("input", "hx"), arguments, strict=False)) | named).get("hx")
        return plain(state[0] if isinstance(state, tuple) else state)

    return [_gates(module, end, inputs) for end, inputs in (("ih", first_argument), ("hh", hidden))]


def _layers(module: nn.RNNBase) -> list[AffineMap]:
    """Of every layer and direction the gates' maps of its inputs and of its hidden states."""
    return [_gates(module, f"{name}_l{layer}{end}", _inputs_of(module, layer, bool(end), name == "hh"))
            for layer in range(module.num_layers)
            for end in ("", "_reverse")[:2 if module.bidirectional else 1] for name in ("ih", "hh")]


def _gates(module: Any, end: str, inputs: Callable[..., Tensor | None]) -> AffineMap:
    return dense(module, f"weight_{end}", f"bias_{end}" if module.bias else None, inputs=inputs,
                 outputs=None, is_dense=False)


for _kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
    register(_kind, _cell)
for _whole in (nn.LSTM, nn.GRU, nn.RNN):
    register(_whole, _layers)
