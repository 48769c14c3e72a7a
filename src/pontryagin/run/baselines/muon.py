"""Muon as it is customarily used: on the weights of hidden layers, convolutions as matrices, AdamW for the
rest."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pontryagin.run.trainer import Optimizer

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d,
             nn.ConvTranspose3d, nn.RNNBase, nn.MultiheadAttention)
"""The modules whose parameters of two axes and more are hidden matrices; those of a recurrent layer hold all
gates."""


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


class Muon(torch.optim.Optimizer):
    """The update of torch.optim.Muon (adjust_lr_fn="match_rms_adamw") in the precision of the weights.

    torch's rounds its iterations to bfloat16, which most CPUs emulate at several times the cost: no fair
    rival on their clocks. Weights of more than two dimensions are taken as matrices (output, rest).
    """

    def __init__(self, weights: Sequence[Tensor], lr: float, momentum: float = 0.95,
                 weight_decay: float = 0.0) -> None:
        super().__init__(list(weights), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                gradient, momentum = weight.grad.flatten(1), group["momentum"]
                buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(gradient))
                buffer.lerp_(gradient, 1 - momentum)
                change = orthogonalized(gradient.lerp(buffer, momentum))
                if group["weight_decay"]:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(change.reshape(weight.shape), alpha=-0.2 * max(change.shape) ** 0.5 * group["lr"])


def orthogonalized(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Five Newton-Schulz iterations with the quintic of Jordan et al. 2024."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.mT
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def muon(model: nn.Module, rate: float, weight_decay: float = 0.0) -> Several:
    """Muon on the matrices of all but the last Linear layer, of recurrent layers and of attention, and on
    filters; AdamW with 0.1 rate elsewhere, on tables, vectors and the last layer."""
    matrices = _hidden(model)
    chosen = {id(weight) for weight in matrices}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    parts: list[Optimizer] = []
    if rest:
        parts.append(torch.optim.AdamW(rest, lr=0.1 * rate, weight_decay=weight_decay))
    if matrices:
        parts.append(Muon(matrices, rate, weight_decay=weight_decay))
    return Several(*parts)


def _hidden(model: nn.Module) -> list[nn.Parameter]:
    """Each once; a last layer that shares the weight of a table is the last layer."""
    last = next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)
    found = {id(weight): weight for module in model.modules()
             if isinstance(module, _MATRICES) and module is not last
             for weight in module.parameters(recurse=False) if weight.ndim > 1}
    if last is not None:
        found.pop(id(last.weight), None)
    return list(found.values())
