"""The batches of an audit: held in memory, checked once, cut into parts that fit."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pontryagin.problem import ProblemError


class Batch(NamedTuple):
    """Inputs (a tensor, or a tuple or dict of tensors), targets, how many samples, and their share of all."""

    inputs: Any
    targets: Tensor
    samples: int
    weight: float

    def part(self, first: int, last: int) -> tuple[Any, Tensor]:
        """Inputs and targets of some of the samples."""
        if isinstance(self.inputs, dict):
            return {name: value[first:last] for name, value in self.inputs.items()}, self.targets[first:last]
        if isinstance(self.inputs, (tuple, list)):
            return tuple(value[first:last] for value in self.inputs), self.targets[first:last]
        return self.inputs[first:last], self.targets[first:last]


def joined(batches: Sequence[Batch]) -> Any:
    """The inputs of several batches as those of one."""
    first = batches[0].inputs
    if isinstance(first, dict):
        return {name: torch.cat([batch.inputs[name] for batch in batches]) for name in first}
    if isinstance(first, (tuple, list)):
        return tuple(torch.cat(parts) for parts in zip(*(batch.inputs for batch in batches), strict=True))
    return torch.cat([batch.inputs for batch in batches])


def gathered(batches: Iterable[Any]) -> list[Batch]:
    """All batches as they come, pairs of inputs and targets. ProblemError for fewer than three or a wrong one."""
    found = []
    for number, batch in enumerate(batches):
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor)):
            raise ProblemError(f"batch {number}: expected a pair of inputs and targets (a tensor), found {type(batch).__name__}")
        lengths = {len(tensor) for tensor in _tensors(batch[0], number)} | {len(batch[1])}
        if len(lengths) != 1 or 0 in lengths:
            raise ProblemError(f"batch {number}: expected as many targets as samples in every input, found {sorted(lengths)}")
        found.append((batch[0], batch[1], lengths.pop()))
    if len(found) < 3 or found[0][2] < 2:
        raise ProblemError(f"audit: expected three batches or more (eight are better) of two samples or more, found "
                           f"{len(found)}: errors are estimated from the differences between batches")
    total = sum(samples for _, _, samples in found)
    return [Batch(inputs, targets, samples, samples / total) for inputs, targets, samples in found]


def _tensors(inputs: Any, number: int) -> list[Tensor]:
    parts = list(inputs.values()) if isinstance(inputs, dict) else list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    if not parts or not all(isinstance(part, Tensor) and part.ndim for part in parts):
        raise ProblemError(f"batch {number}: expected inputs as a tensor, or a tuple or dict of tensors, samples first")
    return parts
