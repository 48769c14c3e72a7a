"""SOAP and Shampoo."""

from torch import nn

from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.methods.packaged import packaged
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import OptimizerTrainer, Trainer


def soap(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """SOAP."""
    return OptimizerTrainer(model, packaged("SOAP", model, rate), objective)


def shampoo(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """Scalable Shampoo."""
    return OptimizerTrainer(model, packaged("ScalableShampoo", model, rate), objective)


SOAP = Method("soap", soap, (3e-3, 1e-3, 5e-3, 1e-2), MethodStyle("SOAP", "#7F7F7F", (0, (5, 1.5))),
              "pytorch_optimizer")
SHAMPOO = Method("shampoo", shampoo, (1e-3, 3e-4, 3e-3, 1e-2),
                 MethodStyle("Shampoo", "#7F7F7F", (0, (1, 1.2))),
                 "pytorch_optimizer", bench_only=True)
