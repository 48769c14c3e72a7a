"""Moments over all processes of torch.distributed; with one process, the moments themselves."""

from collections.abc import Callable

import torch
from torch import Tensor, distributed

Moments = tuple[Tensor, Tensor]


def mean_over_processes(taken: Moments | None, zeros: Callable[[], Moments]) -> Moments | None:
    """Mean and centred second moment over the rows of all processes that have some, each counted alike; None without any.

    Every process has to call it, with or without rows. A diagonal moment is averaged. zeros: moments of the right shape.
    """
    if _alone():
        return taken
    mean, moment = zeros() if taken is None else taken
    present = mean.new_full((1,), float(taken is not None))
    joint = torch.cat([mean.flatten(), present])
    distributed.all_reduce(joint)
    if not joint[-1]:
        return None
    count, joint = joint[-1], joint[:-1].view_as(mean) / joint[-1]
    if moment.ndim == 3:
        offset = mean - joint
        moment = moment + offset.unsqueeze(2) * offset.unsqueeze(1)
    moment = (moment * present).contiguous()
    distributed.all_reduce(moment)
    return joint, moment / count


def largest_over_processes(number: int, device: torch.device) -> int:
    """The same number everywhere."""
    return number if _alone() else _reduced(number, device, distributed.ReduceOp.MAX)


def sum_over_processes(number: int, device: torch.device) -> int:
    """The same number everywhere."""
    return number if _alone() else _reduced(number, device, distributed.ReduceOp.SUM)


def _reduced(number: int, device: torch.device, operation: distributed.ReduceOp.RedOpType) -> int:
    result = torch.tensor(number, device=device)
    distributed.all_reduce(result, op=operation)
    return int(result)


def _alone() -> bool:
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1
