"""What a training minimizes, and when a prediction counts as right."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pontryagin.problem import CrossEntropy, SquaredError
from pontryagin.problem.ignored import IGNORED, counted, mean_of_counted, samples_counted
from pontryagin.run.errors import ExperimentError, unknown

Cost = Callable[[Tensor, Tensor], Tensor]
"""(output, target) -> the cost of each sample, (sample,), as a terminal cost; or, from others' code, their
mean as a scalar."""


@dataclass(frozen=True)
class Objective:
    """J = mean over samples of cost(model(x), y). classifies: outputs are scores of classes, targets class
    indices.

    Class indices of -100 leave the mean and the accuracy, as torch's ignore_index: means are over the others,
    and a batch counts in a mean over several for as many samples as it has of them.
    """

    name: str
    cost: Cost
    classifies: bool

    def mean(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean cost of a batch, a scalar with a gradient; 0 when all targets are ignored."""
        output = class_second(output, target) if self.classifies else output
        try:
            costs = self.cost(output, target)
        except (IndexError, RuntimeError):
            if self.classifies and output.ndim > 1:
                check_classes(target, output.shape[1], "a batch")
            raise
        if self.classifies and costs.shape == target.shape:
            return mean_of_counted(costs, target)
        if self._ignores and not costs.ndim:  # a mean of others' code, 0 / 0 when all are ignored
            return torch.where(counted(target).any(), costs, 0.0)
        return costs.mean()

    def counted(self, target: Tensor) -> Tensor:
        """How many samples of a batch count, a double: one with ignored positions counts in part."""
        return samples_counted(target) if self._ignores else torch.tensor(float(len(target)),
                                                                          dtype=torch.float64)

    @property
    def _ignores(self) -> bool:
        return self.classifies or self.name not in OBJECTIVES

    def right(self, output: Tensor, target: Tensor) -> Tensor | None:
        """How many predictions (the class of the greatest score) are right, of a sample with several the
        share of them; None where nothing is classified. Of as many as are counted. output: (sample, class,
        ...), target: (sample, ...)."""
        if not self.classifies:
            return None
        return (class_second(output, target).argmax(1) == target).reshape(len(target),
                                                                          -1).double().mean(1).sum()


def class_second(output: Tensor, target: Tensor) -> Tensor:
    """Scores (sample, class, ...), as torch has them, also of a network that gives (sample, ..., class)."""
    if output.ndim > 2 and (*output.shape[:1], *output.shape[2:]) != target.shape == output.shape[:-1]:
        return output.movedim(-1, 1)
    return output


def check_classes(target: Tensor, classes: int, what: str) -> None:
    """That class indices are those of so many classes, or ignored. Raises ExperimentError."""
    known = target[target != IGNORED]
    if known.numel() and not (int(known.min()) >= 0 and int(known.max()) < classes):
        raise ExperimentError(f"{what}: expected targets from 0 to {classes - 1}, for the network has "
                              f"{classes} outputs, found {int(known.min())} to {int(known.max())}; number "
                              "the classes from 0, or give the network as many outputs as there are")


def squared_hinge(output: Tensor, target: Tensor) -> Tensor:
    """Sum over classes c of max(0, 1 - s_c output_c)^2, s_c = 1 for the sample's class and -1 for others:
    (sample,); 0 for an ignored class."""
    known = counted(target)
    signs = torch.full_like(output, -1.0).scatter_(1, torch.where(known, target, 0).unsqueeze(1), 1.0)
    return torch.where(known, (1 - signs * output).clamp_min(0).square().sum(1), 0.0)


def binary_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Of logits against targets in [0, 1], summed over components: (sample,)."""
    costs = torch.nn.functional.binary_cross_entropy_with_logits(output, target, reduction="none")
    return costs.flatten(1).sum(1) if costs.ndim > 1 else costs


OBJECTIVES = {one.name: one for one in (
    Objective("cross-entropy", CrossEntropy(), True),
    Objective("squared-hinge", squared_hinge, True),
    Objective("squared-error", SquaredError(), False),
    Objective("binary-cross-entropy", binary_cross_entropy, False),
)}


def objective_named(name: str) -> Objective:
    """One of OBJECTIVES. Raises ExperimentError."""
    if name not in OBJECTIVES:
        raise unknown("loss", [name], (*OBJECTIVES, "my.module:function"))
    return OBJECTIVES[name]
