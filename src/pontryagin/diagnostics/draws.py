"""Generators of random numbers put back, so that passes over the same data draw the same numbers."""

import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

State = list[tuple[Callable[[Any], Any], Any]]
"""Functions that put a generator back, and what they put back."""
_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class Draws:
    """The random numbers of a model's passes: those over the same data begin with the same states of all
    generators.

    These are Python's, numpy's and torch's global ones (also of the GPUs that hold the model) and those that
    a module holds as an attribute, or in a list, tuple or dict that is one: torch.Generator,
    numpy.random.Generator and RandomState, random.Random.
    """

    def __init__(self, model: nn.Module, states: dict[Hashable, State] | None = None) -> None:
        tensors = (*model.parameters(), *model.buffers())
        self._devices = sorted({tensor.device.index for tensor in tensors if tensor.device.type == "cuda"})
        self._own = list({id(one): one for module in model.modules()
                          for one in _generators(vars(module).values())}.values())
        self._known = {} if states is None else states

    def begin(self, data: Hashable) -> None:
        """A pass over `data`: the first goes on with the numbers, each later one begins where that began."""
        if data in self._known:
            _put_back(self._known[data])
        else:
            self._known[data] = self.state()

    def state(self) -> State:
        """Of all generators now."""
        return [(random.setstate, random.getstate()),
                (np.random.set_state, np.random.get_state(legacy=True)),
                (torch.set_rng_state, torch.get_rng_state()),
                *((partial(torch.cuda.set_rng_state, device=device), torch.cuda.get_rng_state(device))
                  for device in self._devices),
                *map(_of, self._own)]


@contextmanager
def same_draws(model: nn.Module, states: dict[Hashable, State] | None = None) -> Iterator[Draws]:
    """The draws of a model; at the end all generators are as before. states: known beginnings of passes, to
    be added to."""
    draws = Draws(model, states)
    before = draws.state()
    try:
        yield draws
    finally:
        _put_back(before)


def _put_back(state: State) -> None:
    for put, value in state:
        put(value)


def _generators(values: Iterable[Any], deep: bool = True) -> Iterator[Any]:
    for value in values:
        if isinstance(value, _KINDS) and not isinstance(value, random.SystemRandom):
            yield value
        elif deep and isinstance(value, (list, tuple, Mapping)):
            yield from _generators(value.values() if isinstance(value, Mapping) else value, False)


def _of(one: Any) -> tuple[Callable[[Any], Any], Any]:
    if isinstance(one, random.Random):
        return one.setstate, one.getstate()
    if isinstance(one, np.random.Generator):
        return partial(setattr, one.bit_generator, "state"), one.bit_generator.state
    return one.set_state, one.get_state()
