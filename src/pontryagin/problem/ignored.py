"""Targets that stand for none, as torch's cross-entropy has them."""

import torch
from jaxtyping import Bool
from torch import Tensor

IGNORED = -100
"""A class index that leaves means and accuracies: torch's ignore_index."""


def counted(target: Tensor) -> Bool[Tensor, "*entry"]:
    """Which class indices count: all but IGNORED; of targets that are no whole numbers all."""
    return torch.ones_like(target, dtype=torch.bool) if target.is_floating_point() else target != IGNORED


def samples_counted(target: Tensor) -> Tensor:
    """How many samples' worth of class indices count: their number over that of a sample, float64."""
    return counted(target).double().sum() * (len(target) / max(target.numel(), 1))


def mean_of_counted(costs: Tensor, target: Tensor) -> Tensor:
    """The mean of costs over the targets that count, each entry with its own; 0 when none does."""
    kept = counted(target)
    return torch.where(kept, costs, 0.0).sum() / kept.sum().clamp_min(1)
