"""Optimizers of the package pytorch-optimizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pontryagin.run.errors import need
from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import OptimizerTrainer, OwnSchedule, Trainer


class ScheduleFree(OwnSchedule):
    """A schedule-free optimizer, which finds the controls that it steps from again only up to rounding."""

    @contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """The model with the optimizer's average; then exactly the controls."""
        kept = [(parameter, parameter.detach().clone()) for parameter in self.model.parameters()]
        try:
            with super().evaluated() as model:
                yield model
        finally:
            with torch.no_grad():
                for parameter, control in kept:
                    parameter.copy_(control)


def schedule_free(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """Schedule-free AdamW (Defazio et al. 2024): it has averages and a rate of its own."""
    made = _optimizer("ScheduleFreeAdamW", model, rate)
    made.train()
    return ScheduleFree(model, made, objective)


def soap(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """SOAP."""
    return OptimizerTrainer(model, _optimizer("SOAP", model, rate), objective)


def shampoo(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """Scalable Shampoo."""
    return OptimizerTrainer(model, _optimizer("ScalableShampoo", model, rate), objective)


def _optimizer(name: str, model: nn.Module, rate: float) -> Any:
    package = need("pytorch_optimizer", name)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # they flatten gradients by view
    return getattr(package, name)(model.parameters(), lr=rate)


SCHEDULE_FREE = Method("schedule-free", schedule_free, (2e-3, 1e-3, 5e-3, 1e-2),
                       MethodStyle("schedule-free AdamW", "#E69F00", (0, (1, 1.2))), "pytorch_optimizer")
SOAP = Method("soap", soap, (3e-3, 1e-3, 5e-3, 1e-2), MethodStyle("SOAP", "#7F7F7F", (0, (5, 1.5))),
              "pytorch_optimizer")
SHAMPOO = Method("shampoo", shampoo, (1e-3, 3e-4, 3e-3, 1e-2),
                 MethodStyle("Shampoo", "#7F7F7F", (0, (1, 1.2))),
                 "pytorch_optimizer")
