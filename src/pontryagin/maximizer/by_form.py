"""The default choice of a maximizer, stage by stage."""

from dataclasses import dataclass, field

from pontryagin.maximizer.closed_form import ClosedForm
from pontryagin.maximizer.coordinate_ascent import CoordinateAscent
from pontryagin.maximizer.gauss_newton import GaussNewton
from pontryagin.maximizer.grid_search import GridSearch, entry_sets
from pontryagin.maximizer.lbfgs import LBFGS
from pontryagin.maximizer.majorized_ascent import MajorizedAscent
from pontryagin.maximizer.protocol import HamiltonianModel, Maximizer
from pontryagin.maximizer.spectral_gradient import SpectralGradient
from pontryagin.problem import (
    L0,
    L1,
    NoCost,
    PerParameter,
    Quadratic,
    SparseSet,
    Stage,
    UnitNormRows,
)
from pontryagin.trajectory import StageGroup

_SMALL = 32
"""Entries of a control up to which a Gauss-Newton system is formed: there it costs less than the second
evaluation of a line search, and it is exact where dynamics are affine in the control."""
_FEW = 6
"""Entries up to which intervals are searched by values: some hundred evaluations an entry and sweep."""


@dataclass(frozen=True)
class ByForm:
    """affine: for stages affine in their control over R^p at a smooth cost; constrained: affine over sets of
    matrices or with L1 or L0; rows: the same where entries cannot move one by one, rows of norm 1 and sparse
    biases.

    Stages that are not known to be affine: small, over R^p at a smooth cost with a control of up to 32
    entries; few, over sets of single entries or with L1 or L0, up to 6 entries or finite sets among them;
    projected, over other sets; other, for all others."""

    affine: Maximizer = field(default_factory=ClosedForm)
    constrained: Maximizer = field(default_factory=CoordinateAscent)
    rows: Maximizer = field(default_factory=MajorizedAscent)
    small: Maximizer = field(default_factory=GaussNewton)
    few: Maximizer = field(default_factory=GridSearch)
    projected: Maximizer = field(default_factory=SpectralGradient)
    other: Maximizer = field(default_factory=LBFGS)

    def model(self, group: StageGroup) -> HamiltonianModel:
        """The model that fits the stages."""
        return self.choice(group.stage).model(group)

    def choice(self, stage: Stage) -> Maximizer:
        """The maximizer of such stages."""
        theta, kinked = stage.admissible, isinstance(stage.running_cost, L0 | L1)
        if stage.affine is None or not (theta.unconstrained or isinstance(theta, PerParameter)):
            return self._not_affine(stage, kinked)
        if theta.unconstrained and not kinked:
            return self.affine
        if stage.affine.map.joint or stage.affine.map.one_hot:  # no matrices of numbers, entry by entry
            return self._not_affine(stage, kinked)
        sets = theta.sets if isinstance(theta, PerParameter) else (None,)
        coupled = isinstance(sets[0], UnitNormRows) or any(isinstance(one, UnitNormRows | SparseSet)
                                                           for one in sets[1:])
        return self.rows if coupled else self.constrained

    def _not_affine(self, stage: Stage, kinked: bool) -> Maximizer:
        smooth = isinstance(stage.running_cost, NoCost | Quadratic)
        if stage.admissible.unconstrained and not (kinked and stage.size <= _FEW):
            return self.small if smooth and stage.size <= _SMALL else self.other
        sets = entry_sets(stage)
        if sets is not None and (stage.size <= _FEW or any(one.values for one in sets)):
            return self.few
        return self.projected
