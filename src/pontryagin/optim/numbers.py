"""Arithmetic of the few numbers that a step has of every output and of every stage.

There are some fifty operations on them in a step, on some hundred numbers each, so that what counts is what
a call costs: those of numpy cost a third of torch's. So they are numpy arrays where they lie on the CPU, of
which tensors are views, and tensors elsewhere; formulas are written once, with operators and the functions
below.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

Numbers = Any
"""A tensor or an array."""


def of(values: Tensor) -> Numbers:
    """The numbers of a tensor, in the same memory."""
    if values.device.type != "cpu":
        return values
    return (values.detach() if values.requires_grad else values).numpy()


def tensor(values: Numbers) -> Tensor:
    """The same numbers again."""
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


def cat(parts: Sequence[Numbers]) -> Numbers:
    """One after the other; a single one itself."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else torch.cat(list(parts))


def flat(parts: Sequence[Numbers | None]) -> Numbers:
    """Those of all tensors and arrays, one after the other; None of none."""
    known = [(of(part) if isinstance(part, Tensor) else part).reshape(-1) for part in parts
             if part is not None]
    return cat(known) if known else None


def as_type(values: Numbers, like: Numbers) -> Numbers:
    """In the precision of others."""
    return values.astype(like.dtype, copy=False) if isinstance(values, np.ndarray) else values.to(like.dtype)


def full(like: Numbers, count: int, value: float) -> Numbers:
    """So many times this number."""
    if isinstance(like, np.ndarray):
        return np.full(count, value, like.dtype)
    return like.new_full((count,), value)


def lerp(start: Numbers, end: Numbers, weight: Any) -> Numbers:
    """(1 - weight) start + weight end."""
    return start + weight * (end - start)


def where(condition: Numbers, one: Any, other: Any) -> Numbers:
    """Of each place one or the other."""
    return np.where(condition, one, other) if isinstance(condition, np.ndarray) else torch.where(
        condition, one, other)


def maximum(one: Numbers, other: Numbers) -> Numbers:
    """NaN where either is."""
    return np.maximum(one, other) if isinstance(one, np.ndarray) else torch.maximum(one, other)


def clip(values: Numbers, least: Any, most: Any) -> Numbers:
    """Within bounds, one of which may be None; NaN stays."""
    if isinstance(values, Tensor):
        return values.clamp(least, most)
    values = values if least is None else np.maximum(values, least)
    return values if most is None else np.minimum(values, most)


def sqrt(values: Numbers) -> Numbers:
    """The root."""
    return np.sqrt(values) if isinstance(values, np.ndarray) else values.sqrt()


def reduced(segments: Any, values: Numbers) -> Numbers:
    """The sum over each segment."""
    return segments.reduced(values)


def spread(segments: Any, values: Numbers) -> Numbers:
    """To each place that of its segment."""
    return segments.spread(values)


def spread_inside(segments: Any, values: Numbers) -> Numbers:
    """The same; 0 where there is padding."""
    return segments.spread_inside(values)


def write(values: Numbers, into: Numbers) -> None:
    """In place."""
    if isinstance(into, np.ndarray):
        np.copyto(into, values)
    else:
        into.copy_(values)


def read(values: Sequence[Numbers]) -> list[float]:
    """Single numbers; those on a device in one go."""
    waiting = [one for one in values if isinstance(one, Tensor)]
    if not waiting:
        return list(map(float, values))
    if len({(one.dtype, one.device) for one in waiting}) > 1:
        waiting = [one.to(waiting[0].device, torch.float64) for one in waiting]
    there = iter(torch.stack(waiting).tolist())
    return [float(next(there) if isinstance(one, Tensor) else one) for one in values]


def quiet() -> AbstractContextManager[Any]:
    """No warnings of numbers beyond range inside: a step that is not finite is refused as a whole."""
    return np.errstate(all="ignore")
