"""Schedule-free AdamW, whose result is an average that it keeps by itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pontryagin.run.methods.method import OWN_SCHEDULE, Method, MethodStyle
from pontryagin.run.methods.packaged import packaged
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import OwnSchedule, Trainer


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


def schedule_free(model: nn.Module, objective: Objective, rate: float, *, weight_decay: float = 0.0,
                  warmup: int = 0) -> Trainer:
    """Schedule-free AdamW (Defazio et al. 2024): it has averages and a rate of its own. warmup: iterations
    over which its rate rises."""
    made = packaged("ScheduleFreeAdamW", model, rate, weight_decay=weight_decay, warmup_steps=warmup)
    made.train()
    return ScheduleFree(model, made, objective)


SCHEDULE_FREE = Method("schedule-free", schedule_free, (2e-3, 1e-3, 5e-3, 1e-2),
                       MethodStyle("schedule-free AdamW", "#8C510A", (0, (1, 1.2))), "pytorch_optimizer",
                       leaves=OWN_SCHEDULE)
