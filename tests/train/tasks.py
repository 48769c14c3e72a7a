"""Small tasks for tests of the run."""

import torch
from torch import nn

from pontryagin.run.objective import OBJECTIVES, Objective
from pontryagin.run.samples import TensorSamples
from pontryagin.run.task import Task


class Noisy(nn.Module):
    """Draws from the global generator in every forward pass, keeps a buffer, and differs in eval mode."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2),
                                  nn.Linear(8, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def classification(samples: int = 120, classes: int = 3) -> Task:
    return _task(samples, classes, OBJECTIVES["cross-entropy"])


def regression(samples: int = 120) -> Task:
    return _task(samples, 1, OBJECTIVES["squared-error"])


def _task(samples: int, outputs: int, objective: Objective) -> Task:
    generator = torch.Generator().manual_seed(5)
    inputs, weights = torch.randn(samples, 6, generator=generator), torch.randn(6, 3, generator=generator)
    scores = inputs @ weights
    targets = scores.argmax(1) if objective.classifies else scores[:, :1].tanh()
    train, test = TensorSamples(inputs[20:], targets[20:]), TensorSamples(inputs[:20], targets[:20])
    return Task("small", lambda: Noisy(outputs), train, test, objective,
                {"samples": samples, "outputs": outputs})
