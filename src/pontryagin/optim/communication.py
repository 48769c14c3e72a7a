"""Moments over all processes of torch.distributed; with one process, the moments themselves."""

import torch
from torch import Tensor, distributed


def mean_over_processes(mean: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and centred second moment over the rows of all processes, each counted alike. A diagonal moment is averaged."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return mean, moment
    square = moment + mean.unsqueeze(2) * mean.unsqueeze(1) if moment.ndim == 3 else moment
    flat = torch.cat([mean.flatten(), square.flatten()])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    mean, square = flat[:mean.numel()].view_as(mean), flat[mean.numel():].view_as(moment)
    return mean, square - mean.unsqueeze(2) * mean.unsqueeze(1) if moment.ndim == 3 else square
