"""Loss and accuracy of a network on held data."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pontryagin.experiments.train.objective import Objective
from pontryagin.experiments.train.samples import Samples

CHUNK = 500
"""Samples that are propagated at once."""


@dataclass(frozen=True)
class Scores:
    """loss: mean over samples; accuracy: share of right predictions, None where nothing is classified."""

    loss: float
    accuracy: float | None


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples, rows: Tensor, objective: Objective) -> Scores:
    """Of these rows, in eval mode; train mode is set back. One synchronization with the device."""
    was_training = model.training
    model.eval()
    losses, right = [], []
    for chunk in rows.split(CHUNK):
        inputs, targets = samples.rows(chunk)
        output = model(inputs)
        losses.append(objective.mean(output, targets).double() * len(chunk))
        found = objective.right(output, targets)
        if found is not None:
            right.append(found)
    model.train(was_training)
    total = torch.stack(losses).sum().item() / len(rows)
    return Scores(total, torch.stack(right).sum().item() / len(rows) if right else None)


def spread_rows(samples: int, wanted: int | None) -> Tensor:
    """`wanted` rows (None: all), evenly over the samples."""
    if wanted is None or wanted >= samples:
        return torch.arange(samples)
    return torch.arange(wanted) * samples // wanted
