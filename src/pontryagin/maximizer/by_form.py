"""The default choice of a maximizer, stage by stage."""

from dataclasses import dataclass, field

from pontryagin.maximizer.closed_form import ClosedForm
from pontryagin.maximizer.lbfgs import LBFGS
from pontryagin.maximizer.protocol import HamiltonianModel, Maximizer
from pontryagin.problem import Stage
from pontryagin.trajectory import StageGroup


@dataclass(frozen=True)
class ByForm:
    """The closed form where the stage is affine in its control, another maximizer elsewhere."""

    affine: Maximizer = field(default_factory=ClosedForm)
    other: Maximizer = field(default_factory=LBFGS)

    def model(self, group: StageGroup) -> HamiltonianModel:
        """The model that fits the stages."""
        return self.choice(group.stage).model(group)

    def choice(self, stage: Stage) -> Maximizer:
        """The maximizer of such stages."""
        return self.other if stage.affine is None else self.affine
