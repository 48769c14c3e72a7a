"""The batches of an audit: held in memory, checked once, cut into parts that fit."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pontryagin.problem import ProblemError


class Part(NamedTuple):
    """Some of the samples of a batch. draw: what tells apart data that passes draw different random numbers
    for."""

    inputs: Any
    targets: Tensor
    draw: Hashable


class Batch(NamedTuple):
    """Inputs (a tensor, or a tuple or dict of tensors), targets, how many samples; counted: how many by the
    loss, without those whose target is ignored; weight: its share of what is counted in all batches."""

    inputs: Any
    targets: Tensor
    samples: int
    counted: float
    weight: float
    number: int

    def part(self, first: int, last: int) -> Part:
        """From the samples first to last - 1."""
        inputs: Any
        if isinstance(self.inputs, dict):
            inputs = {name: value[first:last] for name, value in self.inputs.items()}
        elif isinstance(self.inputs, (tuple, list)):
            inputs = tuple(value[first:last] for value in self.inputs)
        else:
            inputs = self.inputs[first:last]
        return Part(inputs, self.targets[first:last], (self.number, first))

    @property
    def draw(self) -> Hashable:
        """Of the whole batch, and of the part that begins with it."""
        return self.number, 0


def joined(batches: Sequence[Batch]) -> Any:
    """The inputs of several batches as those of one."""
    first = batches[0].inputs
    if isinstance(first, dict):
        return {name: torch.cat([batch.inputs[name] for batch in batches]) for name in first}
    if isinstance(first, (tuple, list)):
        return tuple(torch.cat(parts) for parts in zip(*(batch.inputs for batch in batches), strict=True))
    return torch.cat([batch.inputs for batch in batches])


def gathered(batches: Iterable[Any], counted: Callable[[Tensor], float]) -> list[Batch]:
    """All batches as they come, pairs of inputs and targets, without those of which nothing is counted.
    counted: how many samples of a batch the loss counts, by its targets. ProblemError for a wrong batch."""
    found = [(*checked(batch, number), number) for number, batch in enumerate(batches)]
    counts = [counted(targets) for _, targets, _, _ in found]
    return [Batch(inputs, targets, samples, count, count / sum(counts), number)
            for (inputs, targets, samples, number), count in zip(found, counts, strict=True) if count > 0]


def enough(batches: Sequence[Batch]) -> Sequence[Batch]:
    """The batches of an audit. ProblemError for fewer than three."""
    if len(batches) < 3 or batches[0].samples < 2:
        raise ProblemError("audit: expected three batches or more (eight are better) of two samples or more "
                           f"with targets that count, found {len(batches)}: errors are estimated from the "
                           "differences between batches")
    return batches


def checked(batch: Any, number: int) -> tuple[Any, Tensor, int]:
    """Inputs, targets and the number of samples of a batch. ProblemError when it is no such pair."""
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor)):
        raise ProblemError(f"batch {number}: expected a pair of inputs and targets (a tensor), found "
                           f"{type(batch).__name__}")
    lengths = {len(tensor) for tensor in _tensors(batch[0], number)} | {len(batch[1]) if batch[1].ndim else 1}
    if len(lengths) != 1 or 0 in lengths:
        raise ProblemError(f"batch {number}: expected as many targets as samples in every input, found "
                           f"{sorted(lengths)}")
    return batch[0], batch[1], lengths.pop()


def _tensors(inputs: Any, number: int) -> list[Tensor]:
    parts = list(inputs.values()) if isinstance(inputs, dict) else list(inputs) if isinstance(inputs,
                                                                                              (tuple,
                                                                                               list)) else [inputs]
    if not parts or not all(isinstance(part, Tensor) and part.ndim for part in parts):
        raise ProblemError(f"batch {number}: expected inputs as a tensor, or a tuple or dict of tensors, "
                           "samples first")
    return parts
