"""Loss and accuracy of a network on held data."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pontryagin.experiments.train.objective import Objective
from pontryagin.experiments.train.samples import Samples

_CHUNKS = {"cpu": 100}
"""Samples that are propagated at once: on a CPU so few that activations stay in its caches, elsewhere 1000."""


@dataclass(frozen=True)
class Scores:
    """loss: mean over samples; accuracy: share of right predictions, None where nothing is classified."""

    loss: float
    accuracy: float | None


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples, rows: Tensor, objective: Objective) -> Scores:
    """Of these rows, in eval mode; train mode is set back. One synchronization with the device."""
    was_training = model.training
    size = chunk_size(model)
    model.eval()
    losses, right = [], []
    for chunk in rows.split(size):
        inputs, targets = samples.rows(chunk)
        output = model(inputs)
        losses.append(objective.mean(output, targets).double() * len(chunk))
        found = objective.right(output, targets)
        if found is not None:
            right.append(found)
    model.train(was_training)
    total = torch.stack(losses).sum().item() / len(rows)
    return Scores(total, torch.stack(right).sum().item() / len(rows) if right else None)


def chunk_size(model: nn.Module) -> int:
    """How many samples to propagate at once."""
    return _CHUNKS.get(next(model.parameters()).device.type, 1000)


def spread_rows(samples: int, wanted: int | None) -> Tensor:
    """`wanted` rows (None: all), evenly over the samples."""
    if wanted is None or wanted >= samples:
        return torch.arange(samples)
    return torch.arange(wanted) * samples // wanted
