"""Muon as it is customarily used: on the weights of hidden layers, convolutions as matrices, AdamW for the rest."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.experiments.errors import ExperimentError
from pontryagin.experiments.train.trainer import Optimizer


class Several:
    """Optimizers for different parameters as one."""

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of all."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Of all."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Of all."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """One after the other."""
        return {"parts": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """One after the other."""
        for optimizer, part in zip(self.optimizers, state_dict["parts"], strict=True):
            optimizer.load_state_dict(part)


class FlattenedMuon(torch.optim.Muon if hasattr(torch.optim, "Muon") else torch.optim.SGD):  # type: ignore[misc]
    """Muon on convolutions, as matrices (output, input * kernel)."""

    def __init__(self, filters: Sequence[Tensor], rate: float, **options: Any) -> None:
        self._filters = list(filters)
        self._matrices = [nn.Parameter(weight.detach().flatten(1).clone()) for weight in filters]
        super().__init__(self._matrices, lr=rate, **options)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Copy gradients and weights in, and weights out."""
        for matrix, weight in zip(self._matrices, self._filters, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
            matrix.copy_(weight.flatten(1))
        super().step(closure)
        for matrix, weight in zip(self._matrices, self._filters, strict=True):
            weight.copy_(matrix.view(weight.shape))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of the filters themselves."""
        for weight in self._filters:
            weight.grad = None


def muon(model: nn.Module, rate: float) -> Several:
    """Muon on weights of two dimensions of all but the last such layer and on filters, AdamW with 0.1 rate elsewhere."""
    if not hasattr(torch.optim, "Muon"):
        raise ExperimentError("muon needs torch >= 2.9: update torch or leave it out")
    hidden = [module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    matrices = [weight for weight in hidden if weight.ndim == 2][:-1]
    filters = [weight for weight in hidden if weight.ndim == 4]
    chosen = {id(weight) for weight in matrices + filters}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    settings: dict[str, Any] = {"weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
    parts: list[Optimizer] = [torch.optim.AdamW(rest, lr=0.1 * rate, weight_decay=0.0)] if rest else []
    if matrices:
        parts.append(torch.optim.Muon(matrices, lr=rate, **settings))
    if filters:
        parts.append(FlattenedMuon(filters, rate, **settings))
    return Several(*parts)
