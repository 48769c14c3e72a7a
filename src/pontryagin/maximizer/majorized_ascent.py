"""Ascent by separable majorization: for any set of matrices whose closed form is known."""

from dataclasses import dataclass

import torch

from pontryagin.maximizer.constrained_quadratic import ConstrainedQuadratic, Matrix, SetModel, set_model
from pontryagin.maximizer.elementwise import elementwise, separable_step
from pontryagin.problem import ProblemError
from pontryagin.trajectory import StageGroup


@dataclass(frozen=True)
class MajorizedAscent:
    """V <- argmax over Theta of the model with A, U replaced by diagonal forms that majorize them, until
    nothing changes.

    Each iteration is the projected step of proximal gradient ascent in the metric of those diagonals, and
    never lowers H~. On a convex set with a convex cost it converges to the global maximum; on others
    (k-sparse, unit-norm rows) to a point that no separable step improves. Begins at the elementwise solution.

    iterations: at most; a bound, since it ends by itself where nothing changes.
    """

    iterations: int = 200

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ProblemError(f"MajorizedAscent iterations: expected a number >= 1, found {self.iterations}")

    def model(self, group: StageGroup) -> SetModel:
        """Moments now. ProblemError for a stage that is not affine, or a set or cost that is not known."""
        return set_model(group, "MajorizedAscent",
                         lambda model: majorized(model, elementwise(model), self.iterations))


def majorized(model: ConstrainedQuadratic, point: Matrix, iterations: int) -> Matrix:
    """Safe steps from a point until none improves a stage."""
    for _ in range(iterations):
        moved = model.better(point, separable_step(model, point, model.majorant))
        if torch.equal(moved, point):
            break
        point = moved
    return point
