"""Sums, means and moments over the processes that train one model together; without them, one's own.

Processes belong together where a DistributedDataParallel says so, or the user: a process group that merely
exists, of ranks that train models of their own or do something else, is none of ours. `together` names the
group for the length of a step. Every process of the group has to call each of the others.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from pontryagin.affine import Moments
from pontryagin.distributed.communicator import Alone, Communicator, Processes

_ALONE = Alone()
_HERE: ContextVar[Communicator] = ContextVar("communicator", default=_ALONE)


class together:  # noqa: N801 - a context, in every step
    """Reduce over the processes of a torch.distributed group inside; None: over none."""

    def __init__(self, group: Any) -> None:
        self._here: Communicator = _ALONE if group is None else Processes(group)

    def __enter__(self) -> None:
        self._token = _HERE.set(self._here)

    def __exit__(self, *_: object) -> None:
        _HERE.reset(self._token)


def is_alone() -> bool:
    """Whether there is one process."""
    return _HERE.get().size == 1


def summed(numbers: Tensor) -> Tensor:
    """Sums of each entry over the processes."""
    return _HERE.get().sum(numbers)


def mean_over_processes(taken: Moments | None, zeros: Callable[[], Moments]) -> Moments | None:
    """Mean and centred second moment over the rows of all processes; None without any.

    taken: this process's, None without rows. zeros: moments of the right shape, with the same block on all
    processes.
    """
    if is_alone():
        return taken
    own = zeros() if taken is None else taken
    weight = own.mean.new_full((1,), 0.0 if taken is None else own.count)
    joint = summed(torch.cat([own.mean.flatten() * weight, weight]))
    if not joint[-1]:
        return None
    count, mean = joint[-1], joint[:-1].view_as(own.mean) / joint[-1]
    own.add_outer(own.mean - mean, 1.0)
    second = summed(torch.cat([own.product.flatten(), own.trace]) * weight)
    product, trace = (second / count).split([own.product.numel(), own.trace.numel()])
    return Moments(mean, product.view_as(own.product), trace, own.block, float(count))


def mean_of_known(number: float | None, device: torch.device) -> float | None:
    """Over the processes that know it; None where none does."""
    if is_alone():
        return number
    like = torch.float64 if device.type != "mps" else torch.float32
    own = [0.0, 0.0] if number is None else [number, 1.0]
    total, known = summed(torch.tensor(own, dtype=like, device=device)).tolist()
    return total / known if known else None


def sum_over_processes(number: int, device: torch.device) -> int:
    """The same number everywhere."""
    return number if is_alone() else int(summed(torch.tensor(number, device=device)))


def largest_over_processes(number: int, device: torch.device) -> int:
    """The same number everywhere."""
    return verdict_over_processes([number], device)[0]


def verdict_over_processes(found: Sequence[int], device: torch.device) -> list[int]:
    """The largest number in each place over all processes."""
    return list(found) if is_alone() else _HERE.get().largest(torch.tensor(found, device=device)).tolist()
