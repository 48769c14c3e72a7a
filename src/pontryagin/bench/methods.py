"""The optimizers of the benchmark: those of a training, one whose state no checkpoint can hold, and Adam as
it comes."""

from torch import nn

from pontryagin.run.methods import METHODS as TRAINED
from pontryagin.run.methods import Method, adam, packaged
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import Trainer


def shampoo(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """Scalable Shampoo of pytorch-optimizer."""
    return packaged("ScalableShampoo", model, objective, rate)


METHODS = {name: TRAINED[name] for name in (
    "emsa", "adam", "adam-averaged", "adamw", "schedule-free", "sgd-momentum", "muon", "soap")} | {
    "shampoo": Method("shampoo", shampoo, (1e-3, 3e-4, 3e-3, 1e-2), needs="pytorch_optimizer"),
    "adam-default": Method("adam-default", adam, (1e-3,))}
