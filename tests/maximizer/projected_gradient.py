"""A maximizer of one's own, as the contract suite welcomes it: one file, and a line in its list of cases.

It takes every stage and keeps every admissible set that can project.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from pontryagin.hamiltonian import Measures, Penalties, augmented, measure
from pontryagin.trajectory import StageGroup


@dataclass(frozen=True)
class ProjectedGradient:
    """theta <- project(theta + t grad H~), each stage with a t of its own that grows while H~ rises."""

    iterations: int = 40

    def model(self, group: StageGroup) -> "ProjectedGradientModel":
        return ProjectedGradientModel(group, self.iterations)


class ProjectedGradientModel:
    def __init__(self, group: StageGroup, iterations: int) -> None:
        self.group, self.iterations, self.evaluations = group, iterations, 0

    def maximize(self, penalties: Penalties) -> Tensor:
        def one(control: Tensor, *data: Tensor) -> Tensor:
            return augmented(self.group.stage, control, data, penalties)  # type: ignore[arg-type]

        best, length = self.group.start, torch.ones_like(self.group.start[:, 0])
        for _ in range(self.iterations):
            gradient, value = vmap(grad_and_value(one))(best, *self.group.data)
            trial = self.group.stage.admissible.project(best + length[:, None] * gradient)
            rises = vmap(one)(trial, *self.group.data) > value
            best = torch.where(rises[:, None], trial, best)
            length = torch.where(rises, 2 * length, length / 4)
            self.evaluations += 2
        return best

    def measure(self, controls: Tensor) -> Measures:
        self.evaluations += 1
        return measure(self.group, controls)
