"""Costs that count by the class of their target."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from pontryagin.problem.ignored import counted
from pontryagin.run.errors import ExperimentError, shown
from pontryagin.run.objective import Cost, Objective
from pontryagin.run.samples import Samples, TensorSamples

ClassWeights = Sequence[float] | str | None
"""A weight a class; `balanced`; None: all count alike."""


@dataclass(frozen=True)
class Weighted:
    """w_y * cost(output, y) of each target y, 0 for one that is ignored. weights: (class,).

    So J is the mean over samples of weighted costs; it is not divided by the weights of a batch, as torch's
    CrossEntropyLoss does, so that J is one function of all samples, whatever the batches.
    """

    cost: Cost
    weights: tuple[float, ...]

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The cost of each target. Raises ExperimentError when there are not as many weights as classes, or
        the cost is not one number a target."""
        if output.ndim < 2 or output.shape[1] != len(self.weights):
            raise ExperimentError(f"--class-weights: expected a weight for each of the "
                                  f"{output.shape[-1]} outputs, found {len(self.weights)}")
        costs = self.cost(output, target)
        if costs.shape != target.shape:
            raise ExperimentError("--class-weights: expected a loss that returns one number a target, found "
                                  f"shape {tuple(costs.shape)} for targets of shape {tuple(target.shape)}")
        weights = torch.tensor(self.weights, dtype=costs.dtype, device=costs.device)
        return costs * weights[torch.where(counted(target), target, 0).long()]


def weighted(objective: Objective, weights: ClassWeights, train: Samples) -> Objective:
    """The objective with these weights. balanced: N / (C N_c) of a class with N_c of N targets among C
    classes, whose mean over the training set is 1; 1 of a class without any. Raises ExperimentError."""
    if weights is None:
        return objective
    if not objective.classifies:
        raise ExperimentError(f"--class-weights: the loss {objective.name} tells no classes: leave them out")
    if isinstance(weights, str):
        weights = _balanced(weights, train)
    if not all(isfinite(one) and one >= 0 for one in weights) or not any(weights):
        raise ExperimentError("--class-weights: expected numbers >= 0, one at least above 0, found "
                              f"{shown(tuple(weights))}")
    return replace(objective, cost=Weighted(objective.cost, tuple(map(float, weights))))


def _balanced(word: str, train: Samples) -> list[float]:
    if word != "balanced" or not isinstance(train, TensorSamples):
        raise ExperimentError(f"--class-weights {word}: the classes of a Dataset are known one by one alone: "
                              "give the weights as numbers with commas")
    known = train.targets[counted(train.targets)].long()
    if not len(known) or int(known.min()) < 0:
        raise ExperimentError("--class-weights balanced: expected class indices from 0 on in the training "
                              "set")
    counts = torch.bincount(known)
    shares = len(known) / (len(counts) * counts.double())
    return torch.where(counts > 0, shares, 1.0).tolist()
