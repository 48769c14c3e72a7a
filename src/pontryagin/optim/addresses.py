"""Where gradients and controls lie on the CPU, so that compiled loops read and write them where they are.

Of a small step, calls of torch on each parameter take most of the time. As long as parameters, their states
and types stay what they were when a step was planned, one pass over them is enough: it finds the addresses of
all gradients and controls, and whether anything else has written to a control since the last step.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, compress
from operator import attrgetter, itemgetter
from struct import Struct
from typing import Any

import numpy as np
import torch
from torch import nn

from pontryagin.optim import compiled
from pontryagin.optim.group import Groups
from pontryagin.optim.state import States

_MILD = 1e-10, 1e9
"""The least root mean square of gradients, and their largest norm: their largest entries may be squared as
they are (fading.py)."""
_REQUIRED, _GRADIENT, _VERSION = map(attrgetter, ("requires_grad", "grad", "_version"))
_KIND = attrgetter("__class__", "dtype", "layout")
_PARAMETERS = itemgetter("params")
_NUMEL, _POINTER, _IS_CONTIGUOUS, _IS_NEGATED = (
    torch.Tensor.numel, torch.Tensor.data_ptr, torch.Tensor.is_contiguous, torch.Tensor.is_neg)


class Addresses:
    """Of the parameters that have gradients, all of one dtype.

    parameters: of all groups, in their order; places: the number of each, by its id. gradients, controls:
    addresses. kind: the dtype; like: an array of it. is_fresh: whether they are of this step; is_untouched:
    whether nothing else has written to controls since the last.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], states: States) -> None:
        self._all, self._entries = list(parameters), list(states.values())
        self._known, self._ids = _known(self._all, states), _ids(self._all, states)
        self._required = list(map(_REQUIRED, self._all))
        self.parameters = list(filter(_is_moved, parameters))
        self.places = {id(one): n for n, one in enumerate(self.parameters)}
        self.kind = self.parameters[0].dtype
        self._kinds = [(torch.Tensor, self.kind, torch.strided)] * len(self.parameters)
        self._shapes = [one.shape for one in self.parameters]
        self._numbers = [one.numel() for one in self.parameters]
        self._sizes = np.array(self._numbers)
        self._norms = np.zeros(len(self.parameters))
        self.gradients, self.controls = (np.zeros(len(self.parameters), np.int64) for _ in range(2))
        # an array takes ten times as long to take in a list
        self._write: Callable[..., None] = Struct(f"{len(self.parameters)}q").pack_into
        self._is_moved = [_is_moved(one) for one in self._all]
        self._is_lacking = [one.grad is None for one in self._all]
        self.like = np.zeros(0, np.float64 if self.kind is torch.float64 else np.float32)
        self._written: tuple[list[int], list[int]] = [], []
        self.is_fresh = self.is_untouched = False

    def are_of(self, parameters: Sequence[nn.Parameter], states: States) -> bool:
        """Whether they are those of these parameters, with the gradients and states that they have."""
        return self._known == _known(parameters, states)

    def look(self, groups: Groups, states: States) -> bool:
        """Whether all is as it was, and addresses and sizes are those of this step."""
        self.is_fresh = False
        # each check over all of them in one call: as many lines of Python would take longer than the rest
        known = list(chain.from_iterable(map(_PARAMETERS, groups)))
        if _ids(known, states) != self._ids or list(map(_REQUIRED, known)) != self._required:
            return False
        found, parameters, kind = list(map(_GRADIENT, known)), self.parameters, self.kind
        if [one is None for one in found] != self._is_lacking:
            return False
        gradients: list[Any] = list(compress(found, self._is_moved))
        if not (list(map(_KIND, gradients)) == self._kinds and all(map(_IS_CONTIGUOUS, gradients))
                and not any(map(_IS_NEGATED, gradients)) and all(map(_IS_CONTIGUOUS, parameters))
                and list(map(_NUMEL, gradients)) == list(map(_NUMEL, parameters)) == self._numbers):
            return False
        written = _written(parameters)
        self.is_untouched = written == self._written
        if not self.is_untouched:
            if not all(one.is_cpu and one.dtype is kind and one.shape == shape for one, shape in zip(
                    self.parameters, self._shapes, strict=True)):
                return False
            self.controls[:] = written[1]
        self._write(self.gradients, 0, *map(_POINTER, gradients))
        self.is_fresh = compiled.mild_norms(self.gradients, self._sizes, self.like, *_MILD, self._norms)
        return self.is_fresh

    def id_of(self, place: int) -> int | None:
        """Of the parameter in this place among all."""
        return id(self._all[place]) if place < len(self._all) else None

    def sizes(self) -> Mapping[int, float]:
        """The norm of each gradient, by the id of its parameter."""
        return dict(zip(self.places, self._norms.tolist(), strict=True))

    def note(self) -> None:
        """The step has written."""
        self._written, self.is_fresh = _written(self.parameters), False

    def note_where_they_were(self) -> None:
        """The same where controls lie where `look` found them."""
        self._written, self.is_fresh = (list(map(_VERSION, self.parameters)), self._written[1]), False

    def marks(self) -> Iterable[tuple[int, tuple[int, int, int]]]:
        """By the id of each parameter, what averages.py keeps of that."""
        return ((key, (version, version, address))
                for key, version, address in zip(self.places, *self._written, strict=True))


def _known(parameters: Sequence[nn.Parameter], states: States) -> list[Any]:
    """What is to stay the same."""
    return [*_ids(parameters, states), *map(_REQUIRED, parameters),
            *[gradient is None for gradient in map(_GRADIENT, parameters)]]


def _ids(parameters: Iterable[nn.Parameter], states: States) -> list[int]:
    """Of all of them."""
    return [*map(id, parameters), *map(id, states.values())]


def _written(parameters: Sequence[nn.Parameter]) -> tuple[list[int], list[int]]:
    """Of each what changes with every write, and where it lies."""
    return list(map(_VERSION, parameters)), list(map(_POINTER, parameters))


def _is_moved(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.grad is not None


def addressed(parameters: Sequence[nn.Parameter], states: States) -> Addresses | None:
    """None where loops are not compiled, or cannot read all of them."""
    found = [one for one in parameters if _is_moved(one)]
    if not found or not compiled.fits(found[0]):
        return None
    kind = found[0].dtype
    fitting = all(type(one) is nn.Parameter and one.is_cpu and one.dtype is kind and one.numel()
                  for one in found)
    return Addresses(parameters, states) if fitting else None
