"""Ascent by separable majorization: for any set of matrices whose closed form is known."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer.constrained_quadratic import (
    ConstrainedQuadratic,
    Matrix,
    StageQuadratic,
    measure_by_moments,
    stage_quadratic,
)
from pontryagin.maximizer.elementwise import elementwise, separable_step
from pontryagin.problem import ProblemError
from pontryagin.trajectory import StageGroup

Controls = Float[Tensor, "stage control"]


@dataclass(frozen=True)
class MajorizedAscent:
    """V <- argmax over Theta of the model with A, U replaced by diagonal forms that majorize them, until
    nothing changes.

    Each iteration is the projected step of proximal gradient ascent in the metric of those diagonals, and
    never lowers H~. On a convex set with a convex cost it converges to the global maximum; on others
    (k-sparse, unit-norm rows) to a point that no separable step improves. Begins at the elementwise solution.
    """

    iterations: int = 200

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ProblemError(f"MajorizedAscent iterations: expected a number >= 1, found {self.iterations}")

    def model(self, group: StageGroup) -> "MajorizedModel":
        """Moments now. ProblemError for a stage that is not affine, or a set or cost that is not known."""
        return MajorizedModel(group, stage_quadratic(group, "MajorizedAscent"), self.iterations)


class MajorizedModel:
    """The quadratic H~ of equal affine stages."""

    def __init__(self, group: StageGroup, quadratic: StageQuadratic, iterations: int) -> None:
        self.group, self.quadratic, self.iterations, self.evaluations = group, quadratic, iterations, 0

    def maximize(self, penalties: Penalties) -> Controls:
        """From the elementwise solution."""
        model = self.quadratic.at(penalties)
        return model.control(majorized(model, elementwise(model), self.iterations))

    def measure(self, controls: Controls) -> Measures:
        """Exact, from the moments."""
        return measure_by_moments(self.quadratic, controls)


def majorized(model: ConstrainedQuadratic, point: Matrix, iterations: int) -> Matrix:
    """Safe steps from a point until none improves a stage."""
    for _ in range(iterations):
        moved = model.better(point, separable_step(model, point, model.majorant))
        if torch.equal(moved, point):
            break
        point = moved
    return point
