"""The batches of a look at a model: held in memory, checked once, cut into parts that fit."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pontryagin.problem import ProblemError

Inputs = Any
"""A tensor, or a tuple or dict of tensors as positional or named arguments; samples along the first axis."""


class Part(NamedTuple):
    """Some samples of a batch. draw: tells apart data for which passes draw different random numbers."""

    inputs: Inputs
    targets: Tensor
    draw: Hashable


class Batch(NamedTuple):
    """Inputs, targets, how many samples; counted: how many by the loss, without those whose target is
    ignored; weight: its share of what is counted in all batches."""

    inputs: Inputs
    targets: Tensor
    samples: int
    counted: float
    weight: float
    number: int

    def part(self, first: int, last: int) -> Part:
        """From the samples first to last - 1."""
        return Part(_each(lambda value: value[first:last], self.inputs), self.targets[first:last],
                    (self.number, first))

    @property
    def draw(self) -> Hashable:
        """Of the whole batch, and of the part that begins with it."""
        return self.number, 0


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs as positional and named arguments of a model."""
    if isinstance(inputs, dict):
        return (), inputs
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


def joined(batches: Sequence[Batch]) -> Inputs:
    """The inputs of several batches as those of one."""
    return _each(lambda *parts: torch.cat(parts), *(batch.inputs for batch in batches))


def gathered(batches: Iterable[Any], counted: Callable[[Tensor], float]) -> list[Batch]:
    """All batches as they come, pairs of inputs and targets, without those of which nothing is counted.
    counted: how many samples the loss counts, by their targets. ProblemError for a wrong batch."""
    found = [(*_checked(batch, number), number) for number, batch in enumerate(batches)]
    counts = [counted(targets) for _, targets, _, _ in found]
    return [Batch(inputs, targets, samples, count, count / sum(counts), number)
            for (inputs, targets, samples, number), count in zip(found, counts, strict=True) if count > 0]


def _each(function: Callable[..., Tensor], *inputs: Inputs) -> Inputs:
    """A function of the tensors that stand at the same place, in inputs of one form."""
    first = inputs[0]
    if isinstance(first, dict):
        return {name: function(*(one[name] for one in inputs)) for name in first}
    if isinstance(first, (tuple, list)):
        return tuple(function(*tensors) for tensors in zip(*inputs, strict=True))
    return function(*inputs)


def _checked(batch: Any, number: int) -> tuple[Inputs, Tensor, int]:
    """Inputs, targets and the number of samples of a batch. ProblemError when it is no such pair."""
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor)):
        raise ProblemError(f"batch {number}: expected a pair of inputs and targets (a tensor), found "
                           f"{type(batch).__name__}")
    positional, named = arguments(batch[0])
    parts = [*positional, *named.values()]
    if not parts or not all(isinstance(part, Tensor) and part.ndim for part in parts):
        raise ProblemError(f"batch {number}: expected inputs as a tensor, or a tuple or dict of tensors, "
                           "samples first")
    lengths = {len(part) for part in parts} | {len(batch[1]) if batch[1].ndim else 1}
    if len(lengths) != 1 or 0 in lengths:
        raise ProblemError(f"batch {number}: expected as many targets as samples in every input, found "
                           f"{sorted(lengths)}")
    return batch[0], batch[1], lengths.pop()
