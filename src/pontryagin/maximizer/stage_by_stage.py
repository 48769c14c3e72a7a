"""Any maximizer, one stage after the other: the reference for the batched forms."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer.protocol import HamiltonianModel, Maximizer
from pontryagin.trajectory import StageGroup


@dataclass(frozen=True)
class StageByStage:
    """The stages of a group maximized separately: the same controls, nothing batched."""

    maximizer: Maximizer

    def model(self, group: StageGroup) -> "SeparateModels":
        """A model for each stage."""
        return SeparateModels(group, [self.maximizer.model(single) for single in group.singles()])


class SeparateModels:
    """The models of single stages as one model of the group."""

    def __init__(self, group: StageGroup, models: list[HamiltonianModel]) -> None:
        self.group, self.models = group, models

    @property
    def evaluations(self) -> int:
        """Evaluations of every stage: the mean over stages, rounded up."""
        return -(-sum(model.evaluations for model in self.models) // len(self.models))

    def maximize(self, penalties: Penalties) -> Float[Tensor, "stage control"]:
        """Each stage alone."""
        return torch.cat([model.maximize(penalties) for model in self.models])

    def measure(self, controls: Float[Tensor, "stage control"]) -> Measures:
        """Each stage alone."""
        parts = [model.measure(control.unsqueeze(0))
                 for model, control in zip(self.models, controls, strict=True)]
        return Measures(*(torch.cat(column) for column in zip(*parts, strict=True)))
