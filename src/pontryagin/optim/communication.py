"""Moments over the processes that train one model together; elsewhere, the moments themselves.

Processes belong together where a DistributedDataParallel says so, or the user: a process group that merely
exists, of ranks that train models of their own or do something else, is none of ours. `together` names the
group for the length of a step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, distributed

from pontryagin.optim.moments import Moments

_GROUP: ContextVar[Any] = ContextVar("group", default=None)


@contextmanager
def together(group: Any) -> Iterator[None]:
    """Reduce over the processes of a group inside; None: over none."""
    token = _GROUP.set(group)
    try:
        yield
    finally:
        _GROUP.reset(token)


def mean_over_processes(taken: Moments | None, zeros: Callable[[], Moments]) -> Moments | None:
    """Mean and centred second moment over the rows of all processes; None without any.

    Every process has to call it, with or without rows. zeros: moments of the right shape, with the same block
    on all processes.
    """
    if is_alone():
        return taken
    own = zeros() if taken is None else taken
    weight = own.mean.new_full((1,), 0.0 if taken is None else own.count)
    joint = torch.cat([own.mean.flatten() * weight, weight])
    distributed.all_reduce(joint, group=_GROUP.get())
    if not joint[-1]:
        return None
    count, mean = joint[-1], joint[:-1].view_as(own.mean) / joint[-1]
    own.add_outer(own.mean - mean, 1.0)
    second = torch.cat([own.product.flatten(), own.trace]) * weight
    distributed.all_reduce(second, group=_GROUP.get())
    product, trace = (second / count).split([own.product.numel(), own.trace.numel()])
    return Moments(mean, product.view_as(own.product), trace, own.block, float(count))


def summed(numbers: Tensor) -> Tensor:
    """Sums of each entry over several processes, in place. Every process has to call it."""
    distributed.all_reduce(numbers, group=_GROUP.get())
    return numbers


def largest_over_processes(number: int, device: torch.device) -> int:
    """The same number everywhere."""
    return number if is_alone() else _reduced(number, device, distributed.ReduceOp.MAX)


def sum_over_processes(number: int, device: torch.device) -> int:
    """The same number everywhere."""
    return number if is_alone() else _reduced(number, device, distributed.ReduceOp.SUM)


def verdict_over_processes(found: Sequence[int], device: torch.device) -> list[int]:
    """The largest number in each place over all processes. Every process has to call it."""
    if is_alone():
        return list(found)
    result = torch.tensor(found, device=device)
    distributed.all_reduce(result, op=distributed.ReduceOp.MAX, group=_GROUP.get())
    return result.tolist()


def _reduced(number: int, device: torch.device, operation: distributed.ReduceOp.RedOpType) -> int:
    result = torch.tensor(number, device=device)
    distributed.all_reduce(result, op=operation, group=_GROUP.get())
    return int(result)


def is_alone() -> bool:
    """Whether there is one process."""
    return _GROUP.get() is None or distributed.get_world_size(_GROUP.get()) == 1


def mean_over_ranks(value: Tensor | None, like: Tensor) -> Tensor | None:
    """The mean over the processes that have a value, each counted alike; None without any. Every process has
    to call it."""
    if is_alone():
        return value
    own = torch.zeros_like(like) if value is None else value
    joint = torch.cat([own.flatten(), like.new_full((1,), float(value is not None))])
    distributed.all_reduce(joint, group=_GROUP.get())
    return joint[:-1].view_as(like) / joint[-1] if joint[-1] else None
