"""EMSA, AdamW and Muon; and the kinds of EMSA's steps."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.device.tasks import Batch, Task
from pontryagin.optim import EMSA
from pontryagin.optim.schedule import is_due, is_probe_due
from pontryagin.run.baselines.muon import Muon as OwnMuon
from pontryagin.run.baselines.muon import Several

RATES = {"AdamW": (1e-3, 3e-4, 3e-3), "Muon": (3e-3, 1e-3, 1e-2)}
"""Muon's are for steps of the size of AdamW's; the rest of the parameters gets AdamW at no more than 3e-3."""
KINDS = ("ordinary", "probe", "refresh")
"""Of EMSA's steps; those of others are ordinary."""


class FlatMuon:
    """torch's Muon on weights of any shape, seen as matrices (output, rest) that share their storage."""

    def __init__(self, weights: Sequence[nn.Parameter], lr: float) -> None:
        self._pairs = [(weight, nn.Parameter(_matrix(weight.detach(), weight))) for weight in weights]
        matrices = [matrix for _, matrix in self._pairs]
        for weight, matrix in self._pairs:
            if weight.data_ptr() != matrix.data_ptr():
                raise ValueError(f"no view of a weight of shape {tuple(weight.shape)} is a matrix")
        self._muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self.param_groups = self._muon.param_groups

    def zero_grad(self) -> None:
        """Of the weights."""
        for weight, _ in self._pairs:
            weight.grad = None

    def step(self) -> None:
        """Of the matrices, by the gradients of the weights."""
        for weight, matrix in self._pairs:
            matrix.grad = None if weight.grad is None else _matrix(weight.grad, weight)
        self._muon.step()


def _matrix(value: Tensor, weight: Tensor) -> Tensor:
    """What has a weight's shape as a matrix; with channels last in another order, which does not matter."""
    if weight.ndim == 4 and not weight.is_contiguous():
        value = value.permute(0, 2, 3, 1)
    return value.flatten(1)


def adamw(parameters: Iterable[nn.Parameter], rate: float,
          betas: tuple[float, float]) -> torch.optim.Optimizer:
    """Fused, if it can be."""
    parameters = list(parameters)
    try:
        return torch.optim.AdamW(parameters, rate, betas=betas, weight_decay=0.0, fused=True)
    except (RuntimeError, TypeError) as error:
        print(f"AdamW(fused=True) is not to be had: {error}", flush=True)
        return torch.optim.AdamW(parameters, rate, betas=betas, weight_decay=0.0)


def muon(model: nn.Module, rate: float, betas: tuple[float, float]) -> Several:
    """Muon on all matrices and filters but the first map's, tables and the head; AdamW on the rest."""
    maps = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    head = [module for module in maps if isinstance(module, nn.Linear)][-1:]
    hidden = [module.weight for module in maps if module not in head and not _is_first(module)]
    chosen = {id(weight) for weight in hidden}
    rest = adamw((p for p in model.parameters() if id(p) not in chosen), min(rate, 3e-3), betas)
    if hasattr(torch.optim, "Muon"):
        try:
            return Several(rest, FlatMuon(hidden, rate))
        except (TypeError, ValueError) as error:
            print(f"torch.optim.Muon is not to be had: {error}", flush=True)
    return Several(rest, OwnMuon(hidden, rate))


def _is_first(module: nn.Module) -> bool:
    """Whether it sees the pixels."""
    return isinstance(module, nn.Conv2d) and module.in_channels == 3


def optimizer_of(method: str, model: nn.Module, task: Task, rate: float | None = None) -> Any:
    """By name; None for the passes alone."""
    if method.startswith("EMSA"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return EMSA(model) if rate is None else EMSA(model, lr=rate)
    if method == "AdamW":
        return adamw(model.parameters(), rate or RATES["AdamW"][0], task.betas)
    return muon(model, rate or RATES["Muon"][0], task.betas) if method == "Muon" else None


def kind_of(optimizer: Any) -> str:
    """Of the step that comes next."""
    if not isinstance(optimizer, EMSA):
        return "ordinary"
    group = optimizer.param_groups[0]
    if is_due(group["steps"] + 1, group["refresh_every"]):
        return "refresh"
    return "probe" if is_probe_due(group["steps"] + 1) else "ordinary"


def force(optimizer: Any) -> None:
    """Let EMSA refresh in the step after the next, which tells it anew how often to."""
    for group in optimizer.param_groups:
        group["refresh_every"] = 1


def passes(task: Task, model: nn.Module, optimizer: Any, batch: Batch) -> Tensor:
    """Forward and backward."""
    if optimizer is None:
        model.zero_grad()
    else:
        optimizer.zero_grad()
    loss = task.loss(model, batch)
    loss.backward()
    return loss.detach()


def step_of(optimizer: Any, loss: Tensor) -> None:
    """EMSA is told the loss."""
    if isinstance(optimizer, EMSA):
        optimizer.step(loss=loss)
    elif optimizer is not None:
        optimizer.step()
