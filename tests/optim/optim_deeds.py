"""What others do to a model and its optimizer before each of sixty steps, by the number of the step."""

from copy import deepcopy

import torch
from torch import nn

from pontryagin.optim import EMSA


def scheduled(n: int, _: nn.Module, optimizer: EMSA) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.03 * (1 - n / 60)


def set_anew(n: int, _: nn.Module, optimizer: EMSA) -> None:
    group = optimizer.param_groups[0]
    group["damping"], group["momentum"] = (0.3, 0.5) if 20 < n < 40 else (0.1, 0.8)
    group["exponent"] = 1.0 if n > 50 else None
    group["weight_decay"] = 0.1 if n == 45 else 0.0


def replaced(n: int, model: nn.Module, _: EMSA) -> None:
    if n in (25, 26, 50):
        weight = next(model.parameters())
        weight.data = 0.5 * weight.data.clone()


def written(n: int, model: nn.Module, _: EMSA) -> None:
    if n in (25, 50):
        with torch.no_grad():
            next(model.parameters()).mul_(0.5)


def through_data(n: int, model: nn.Module, _: EMSA) -> None:
    """Which autograd does not count."""
    if n in (25, 50):
        next(model.parameters()).data.mul_(0.5)


def spread(n: int, model: nn.Module, _: EMSA) -> None:
    """Gradients that are not their own memory."""
    for parameter in model.parameters():
        grad = parameter.grad
        if grad is not None and n % 3 == 0:
            parameter.grad = grad.mT.contiguous().mT if grad.ndim == 2 else torch.stack([grad, grad], 1)[:, 0]


def negated(n: int, model: nn.Module, _: EMSA) -> None:
    """By a bit, in the same memory."""
    parameter = next(model.parameters())
    if parameter.grad is not None and n % 5 == 0:
        parameter.grad = torch._neg_view(parameter.grad)


def frozen(n: int, model: nn.Module, _: EMSA) -> None:
    parameter = list(model.parameters())[-1]
    parameter.requires_grad_(not 22 < n < 30)
    if 34 < n < 39:
        parameter.grad = None


def evaluated(n: int, _: nn.Module, optimizer: EMSA) -> None:
    if n % 9 == 3:
        optimizer.eval()
        optimizer.train()


def reset(n: int, _: nn.Module, optimizer: EMSA) -> None:
    if n == 40:
        optimizer.load_state_dict(deepcopy(optimizer.state_dict()))


def cleared(n: int, _: nn.Module, optimizer: EMSA) -> None:
    if n == 37:
        optimizer.state.clear()


def mixed(n: int, model: nn.Module, _: EMSA) -> None:
    """Out of range, and back."""
    for parameter in model.parameters():
        if parameter.grad is not None and n % 5 == 4:
            parameter.grad *= 10.0**(25 if n % 2 else -25)


def moved(n: int, _: nn.Module, optimizer: EMSA) -> None:
    """Averages, and what AdamW keeps, get other memory."""
    if n % 11 == 8:
        for entries in optimizer.state.values():
            for name in {"first", "second", "updates", "mean_control"} & entries.keys():
                before, entries[name].data = entries[name].data, entries[name].data.clone()
                before.fill_(torch.nan)


def switched(n: int, _: nn.Module, optimizer: EMSA) -> None:
    optimizer.param_groups[0]["averaging"] = None if 20 <= n < 47 else 8.0


DEEDS = (scheduled, set_anew, replaced, written, through_data, spread, negated, frozen, evaluated, reset,
         cleared, mixed, moved, switched)
