"""What is trained: a network, data, an objective."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pontryagin.run.errors import ExperimentError
from pontryagin.run.objective import Objective
from pontryagin.run.samples import Samples


@dataclass(frozen=True)
class Task:
    """build: the network at its start, from torch's global generator. description: in plain types, what the
    task was made from; checkpoints keep it, and a resumed run must have the same."""

    name: str
    build: Callable[[], nn.Module]
    train: Samples
    test: Samples
    objective: Objective
    description: dict[str, Any]

    def to(self, device: torch.device, dtype: torch.dtype) -> "Task":
        """Data and network there."""
        return Task(self.name, lambda: self.build().to(device, dtype), self.train.to(device, dtype),
                    self.test.to(device, dtype), self.objective, self.description)

    def check(self) -> None:
        """One small batch through the network and the objective, before any work. Raises ExperimentError."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = self.build()
            inputs, targets = self.train.rows(torch.arange(min(2, len(self.train))))
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise ExperimentError(f"{self.name}: the network has no parameter to train")
            try:
                with torch.no_grad():
                    output = model(inputs)
                    loss = self.objective.mean(output, targets)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise ExperimentError(f"{self.name}: network, data and loss {self.objective.name} do not "
                                      f"fit: inputs {tuple(inputs.shape)} {inputs.dtype}, targets "
                                      f"{tuple(targets.shape)} {targets.dtype}: "
                                      f"{' '.join(str(error).split())}") from error
            if loss.ndim:
                raise ExperimentError(f"{self.name}: the loss gave shape {tuple(loss.shape)} where a number "
                                      "was expected")
            if self.objective.classifies and (*output.shape[:1], *output.shape[2:]) != tuple(targets.shape):
                raise ExperimentError(f"{self.name}: classification expects outputs (sample, class, ...) and "
                                      f"targets (sample, ...), found {tuple(output.shape)} and "
                                      f"{tuple(targets.shape)}")
