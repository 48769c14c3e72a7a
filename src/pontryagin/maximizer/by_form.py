"""The default choice of a maximizer, stage by stage."""

from dataclasses import dataclass, field

from pontryagin.maximizer.closed_form import ClosedForm
from pontryagin.maximizer.coordinate_ascent import CoordinateAscent
from pontryagin.maximizer.lbfgs import LBFGS
from pontryagin.maximizer.majorized_ascent import MajorizedAscent
from pontryagin.maximizer.protocol import HamiltonianModel, Maximizer
from pontryagin.problem import L0, L1, PerParameter, SparseSet, Stage, UnitNormRows
from pontryagin.trajectory import StageGroup


@dataclass(frozen=True)
class ByForm:
    """affine: for stages affine in their control over R^p at a smooth cost; constrained: affine over sets of
    matrices or with L1 or L0; rows: the same where entries cannot move one by one, rows of norm 1 and sparse
    biases; other: for all others."""

    affine: Maximizer = field(default_factory=ClosedForm)
    constrained: Maximizer = field(default_factory=CoordinateAscent)
    rows: Maximizer = field(default_factory=MajorizedAscent)
    other: Maximizer = field(default_factory=LBFGS)

    def model(self, group: StageGroup) -> HamiltonianModel:
        """The model that fits the stages."""
        return self.choice(group.stage).model(group)

    def choice(self, stage: Stage) -> Maximizer:
        """The maximizer of such stages."""
        if stage.affine is None:
            return self.other
        if stage.admissible.unconstrained and not isinstance(stage.running_cost, L0 | L1):
            return self.affine
        if stage.affine.map.joint or stage.affine.map.one_hot:  # no matrices of numbers, entry by entry
            return self.other
        sets = stage.admissible.sets if isinstance(stage.admissible, PerParameter) else (None,)
        coupled = isinstance(sets[0], UnitNormRows) or any(isinstance(one, UnitNormRows | SparseSet)
                                                           for one in sets[1:])
        return self.rows if coupled else self.constrained
