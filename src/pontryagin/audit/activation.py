"""Follows the output of a stage through the functions that it alone passes: activations, pooling,
normalization by constants.

A stage with its activation, z -> phi(W x + b), has a state phi(z) that is known exactly for any W, while the
costates there are those of what comes after. So nothing of phi has to be linearized.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode

Step = Callable[[Tensor], Tensor]

_NAMES = """relu relu_ relu6 tanh tanh_ sigmoid sigmoid_ gelu silu elu selu celu leaky_relu leaky_relu_
softplus softsign mish hardswish hardsigmoid hardtanh logsigmoid clone max_pool1d max_pool2d max_pool3d
avg_pool1d avg_pool2d avg_pool3d"""
_FOLLOWED = {function for room in (torch, Tensor, F, torch._C._nn) for name in _NAMES.split()
             if (function := getattr(room, name, None)) is not None}
"""Functions of z alone, sample by sample."""


@dataclass
class Track:
    """The way of one z. given: the copy of z that the network goes on with. nodes: the tensors on the way,
    their versions when they came, and the steps that made them. open: nothing has taken the last one yet."""

    given: Tensor
    nodes: list[tuple[Tensor, int, Step | None]]
    open: bool = True

    def end(self) -> tuple[Tensor, list[Step]]:
        """The last tensor on which everything after depends through it alone, and the steps from z to it."""
        last = max(place for place, (tensor, version, _) in enumerate(self.nodes)
                   if not place or tensor._version == version)  # not changed in place since
        return self.nodes[last][0], [step for _, _, step in self.nodes[:last + 1] if step is not None]


class Follower(TorchFunctionMode):
    """While it is on, every function of torch that takes a followed tensor leaves a note on its track.

    Tensor.detach does not: nothing depends on z by it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[int, list[tuple[Track, int]]] = {}

    def follow(self, z: Tensor, given: Tensor) -> Track:
        """The track of z, which the network knows as `given`."""
        track = Track(given, [(z, z._version, None)])
        self._places.setdefault(id(given), []).append((track, 0))
        return track

    def __torch_function__(self, function: Any, types: Any, arguments: tuple[Any, ...] = (),
                           named: Mapping[str, Any] | None = None) -> Any:
        given = dict(named or {})
        result = function(*arguments, **given)
        if self._places and function is not Tensor.detach and any(True for _ in _tensors([result])):
            tensors = {id(tensor): tensor for tensor in _tensors([*arguments, *given.values()])}
            for taken in [tensor for key, tensor in tensors.items() if key in self._places]:
                first = bool(arguments) and arguments[0] is taken
                self._note(taken, result,
                           _step(function, arguments, given, alone=len(tensors) == 1) if first else None)
        return result

    def _note(self, taken: Tensor, result: Any, step: Step | None) -> None:
        """A function took a followed tensor; step: what it did, None for one that ends the way."""
        places = self._places.pop(id(taken))
        if result is not taken:
            self._places[id(taken)] = places
        for track, place in places:
            if step is not None and track.open and place == len(track.nodes) - 1:
                track.nodes.append((result, result._version, step))
                self._places.setdefault(id(result), []).append((track, place + 1))
            else:
                track.open = False
                del track.nodes[place + 1:]


def _step(function: Any, arguments: tuple[Any, ...], named: dict[str, Any], alone: bool) -> Step | None:
    """What a function does to its first argument, if it is one to be followed. alone: it takes no other
    tensor."""
    constants = function is F.batch_norm and named.get("training") is False  # as torch's modules call it
    if not constants and not (function in _FOLLOWED and alone):
        return None
    return lambda x: function(x, *arguments[1:], **named)


def _tensors(parts: Iterable[Any]) -> Iterator[Tensor]:
    for part in parts:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, (list, tuple)):
            yield from _tensors(part)
