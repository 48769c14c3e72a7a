"""SOAP and Shampoo."""

from torch import nn

from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.methods.packaged import packaged
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import OptimizerTrainer, Trainer


def soap(model: nn.Module, objective: Objective, rate: float, *, weight_decay: float = 0.01,
         max_precondition_dim: int = 10000) -> Trainer:
    """SOAP. max_precondition_dim: sides of a matrix that are longer keep Adam's second moments."""
    made = packaged("SOAP", model, rate, weight_decay=weight_decay, max_precondition_dim=max_precondition_dim)
    return OptimizerTrainer(model, made, objective)


def shampoo(model: nn.Module, objective: Objective, rate: float, *, weight_decay: float = 0.0) -> Trainer:
    """Scalable Shampoo. weight_decay: decoupled."""
    made = packaged("ScalableShampoo", model, rate, weight_decay=weight_decay, decoupled_weight_decay=True)
    return OptimizerTrainer(model, made, objective)


SOAP = Method("soap", soap, (3e-3, 1e-3, 5e-3, 1e-2), MethodStyle("SOAP", "#7F7F7F", (0, (5, 1.5))),
              "pytorch_optimizer")
SHAMPOO = Method("shampoo", shampoo, (1e-3, 3e-4, 3e-3, 1e-2),
                 MethodStyle("Shampoo", "#332288", (0, (1, 1.2))),
                 "pytorch_optimizer", bench_only=True)
