"""Lion: the sign of an interpolation between momentum and gradient (Chen et al. 2023)."""

from torch import nn

from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.methods.packaged import packaged
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import OptimizerTrainer, Trainer


def lion(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """Lion; its rates are a third to a tenth of Adam's on large models."""
    return OptimizerTrainer(model, packaged("Lion", model, rate), objective)


LION = Method("lion", lion, (1e-3, 3e-4, 1e-4, 3e-3), MethodStyle("Lion", "#44AA99", (0, (1, 1.2))),
              "pytorch_optimizer")
