"""Torch's first-order optimizers."""

from collections.abc import Sequence

import torch
from torch import nn

from pontryagin.optim import Averaged
from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import OptimizerTrainer, Trainer

_ADAM = (1e-3, 2e-3, 5e-3, 1e-2)


def sgd(model: nn.Module, objective: Objective, rate: float, *, momentum: float = 0.0,
        weight_decay: float = 0.0) -> Trainer:
    """Stochastic gradient descent, plain by default as in the paper."""
    return OptimizerTrainer(model, torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum,
                                                   weight_decay=weight_decay), objective)


def sgd_momentum(model: nn.Module, objective: Objective, rate: float, *, momentum: float = 0.9,
                 weight_decay: float = 0.0) -> Trainer:
    """The same with momentum."""
    return sgd(model, objective, rate, momentum=momentum, weight_decay=weight_decay)


def adagrad(model: nn.Module, objective: Objective, rate: float, *, weight_decay: float = 0.0) -> Trainer:
    """Adagrad."""
    return OptimizerTrainer(model,
                            torch.optim.Adagrad(model.parameters(), lr=rate, weight_decay=weight_decay),
                            objective)


def adam(model: nn.Module, objective: Objective, rate: float, *, betas: Sequence[float] = (0.9, 0.999),
         eps: float = 1e-8, weight_decay: float = 0.0) -> Trainer:
    """Adam."""
    return OptimizerTrainer(model, torch.optim.Adam(model.parameters(), lr=rate, betas=_pair(betas), eps=eps,
                                                    weight_decay=weight_decay), objective)


def adam_averaged(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """Adam with the averages of EMSA."""
    return OptimizerTrainer(model, Averaged(torch.optim.Adam(model.parameters(), lr=rate)), objective)


def adamw(model: nn.Module, objective: Objective, rate: float, *, betas: Sequence[float] = (0.9, 0.999),
          eps: float = 1e-8, weight_decay: float = 0.01, foreach: bool | None = None,
          fused: bool | None = None) -> Trainer:
    """Adam with decoupled weight decay. foreach, fused: which of torch's implementations, as torch has it."""
    return OptimizerTrainer(model, torch.optim.AdamW(
        model.parameters(), lr=rate, betas=_pair(betas), eps=eps, weight_decay=weight_decay, foreach=foreach,
        fused=fused), objective)


def _pair(betas: Sequence[float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise ValueError(f"expected two betas, found {len(betas)}")
    return betas[0], betas[1]


SGD = Method("sgd", sgd, (1e-1, 3e-2, 3e-1, 1.0), MethodStyle("SGD", "#999933", (0, (6, 1.5, 1.5, 1.5))))
SGD_MOMENTUM = Method("sgd-momentum", sgd_momentum, (1e-2, 3e-2, 1e-1, 3e-1),
                      MethodStyle("SGD with momentum", "#CC79A7"))
ADAGRAD = Method("adagrad", adagrad, (1e-2, 3e-3, 3e-2, 1e-1),
                 MethodStyle("Adagrad", "#E69F00", (0, (5, 1.5))))
ADAM = Method("adam", adam, _ADAM, MethodStyle("Adam", "#D55E00"))
ADAM_DEFAULT = Method("adam-default", adam, _ADAM[:1],
                      MethodStyle("Adam at its default", "#CC6677", (0, (6, 1.5, 1.5, 1.5))), bench_only=True)
ADAM_AVERAGED = Method("adam-averaged", adam_averaged, _ADAM,
                       MethodStyle("Adam, averaged", "#A6761D", (0, (1, 1.2))))
ADAMW = Method("adamw", adamw, _ADAM, MethodStyle("AdamW", "#882255", (0, (5, 1.5))))
