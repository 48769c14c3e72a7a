"""Muon as it is customarily used."""

from torch import nn

from pontryagin.run.baselines import muon as optimizer
from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import OptimizerTrainer, Trainer


def muon(model: nn.Module, objective: Objective, rate: float, *, weight_decay: float = 0.0) -> Trainer:
    """Muon on hidden layers, AdamW elsewhere."""
    return OptimizerTrainer(model, optimizer(model, rate, weight_decay), objective)


MUON = Method("muon", muon, (1e-2, 3e-3, 2e-2, 4e-2), MethodStyle("Muon", "#009E73", (0, (3, 1.2))))
