"""Loss and accuracy of a network on held data."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pontryagin.problem.ignored import IGNORED
from pontryagin.run.errors import ExperimentError
from pontryagin.run.objective import Objective
from pontryagin.run.samples import Samples

_CHUNKS = {"cpu": 100}
"""Samples that are propagated at once: on a CPU so few that activations stay in its caches, elsewhere
1000."""


@dataclass(frozen=True)
class Scores:
    """loss: mean over samples; accuracy: share of right predictions, None where nothing is classified. Both
    of targets that
    count: not of class indices -100."""

    loss: float
    accuracy: float | None


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples, rows: Tensor, objective: Objective) -> Scores:
    """Of these rows, in eval mode; train mode is set back. One synchronization with the device.

    Raises ExperimentError when all targets are ignored.
    """
    was_training = model.training
    size = chunk_size(model)
    model.eval()
    losses, right, counts = [], [], []
    for chunk in rows.split(size):
        inputs, targets = samples.rows(chunk)
        output = model(inputs)
        counts.append(objective.counted(targets).to(output.device))
        losses.append(objective.mean(output, targets).double() * counts[-1])
        found = objective.right(output, targets)
        if found is not None:
            right.append(found)
    model.train(was_training)
    sums = torch.stack([torch.stack(each).sum() for each in (losses, counts, right) if each]).tolist()
    if not sums[1]:
        raise ExperimentError(f"all targets of the {len(rows)} evaluated samples are {IGNORED}, which stands "
                              "for none: expected some class indices")
    return Scores(sums[0] / sums[1], sums[2] / sums[1] if right else None)


def chunk_size(model: nn.Module) -> int:
    """How many samples to propagate at once."""
    return _CHUNKS.get(next(model.parameters()).device.type, 1000)


def spread_rows(samples: int, wanted: int | None) -> Tensor:
    """`wanted` rows (None: all), evenly over the samples."""
    if wanted is None or wanted >= samples:
        return torch.arange(samples)
    return torch.arange(wanted) * samples // wanted
