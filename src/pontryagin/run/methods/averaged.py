"""Any optimizer with the averages that EMSA keeps: what they alone are worth."""

from typing import Any

import torch
from torch import nn

from pontryagin.optim import averaging
from pontryagin.run.trainer import Optimizer


class Averaged:
    """An optimizer whose result is the average of its controls that pontryagin.optim.averaging keeps."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, eta: float = 8.0) -> None:
        self.optimizer, self.eta, self.steps = optimizer, eta, 0
        self._found: list[tuple[nn.Parameter, averaging.State]] = [(parameter, {})
                                                                   for parameter in model.parameters()]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's."""
        return self.optimizer.param_groups

    def zero_grad(self) -> None:
        """The optimizer's."""
        self.optimizer.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """The optimizer's; its controls enter the averages."""
        self.optimizer.step()
        self.steps += 1
        averaging.remember(self._found, self.steps, self.eta)

    @torch.no_grad()
    def eval(self) -> None:
        """Show the averages."""
        for parameter, state in self._found:
            averaging.show(parameter, state)

    @torch.no_grad()
    def train(self) -> None:
        """Hide them."""
        for parameter, state in self._found:
            averaging.hide(parameter, state)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, the averages and their number."""
        return {"optimizer": self.optimizer.state_dict(), "steps": self.steps,
                "averages": [state for _, state in self._found]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from such a state."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.steps = state_dict["steps"]
        for (parameter, state), saved in zip(self._found, state_dict["averages"], strict=True):
            state.clear()
            state.update({name: value.to(parameter.device, copy=True) for name, value in saved.items()})
