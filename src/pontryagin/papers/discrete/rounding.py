"""Rounding after training: the weights of a real-valued network replaced by the nearest of a discrete set."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pontryagin.problem.admissible import DiscreteSet
from pontryagin.run.baselines import rounded, split_parameters
from pontryagin.run.task import Samples

CHUNK, CHUNKS = 500, 20
"""Samples in a pass of recalibration, and passes."""


@torch.no_grad()
def rounded_model(model: nn.Module, admissible: DiscreteSet) -> nn.Module:
    """A copy whose weights are rounded: with a scale per row to the nearest, else by sign or threshold as
    BinaryConnect."""
    copied = copy.deepcopy(model)
    for weight in split_parameters(copied)[0]:
        weight.copy_(rounded(weight, admissible))
    return copied


@torch.no_grad()
def recalibrated(model: nn.Module, samples: Samples) -> nn.Module:
    """The model itself, its normalizations' running statistics averaged anew over 10000 training samples,
    evenly chosen."""
    rows = torch.arange(CHUNKS * CHUNK) * len(samples) // (CHUNKS * CHUNK)
    if len(samples) < CHUNKS * CHUNK:
        rows = torch.arange(len(samples))
    with _averaging(model):
        for chunk in _even(rows):
            model(samples.rows(chunk)[0])
    return model.eval()


def _even(rows: Tensor) -> tuple[Tensor, ...]:
    """Chunks of about CHUNK rows that each spread over all of them."""
    count = max(1, len(rows) // CHUNK)
    return tuple(rows[first::count] for first in range(count))


@contextmanager
def _averaging(model: nn.Module) -> Iterator[None]:
    """In train mode, with cumulative running means."""
    found = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [module.momentum for module in found]
    for module in found:
        module.reset_running_stats()
        module.momentum = None
    model.train()
    try:
        yield
    finally:
        for module, momentum in zip(found, momenta, strict=True):
            module.momentum = momentum
