"""The closed forms over sets of matrices, from the diagonal of the quadratic model: the elementwise rule."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.maximizer.constrained_quadratic import ConstrainedQuadratic, Matrix, SetModel, set_model
from pontryagin.maximizer.entrywise import argmax
from pontryagin.problem import DiscreteSet, ProblemError, UnitNormRows
from pontryagin.trajectory import StageGroup

Scales = Float[Tensor, "stage row 1"]


@dataclass(frozen=True)
class Elementwise:
    """The argmax over Theta as if the inputs (and the costates) were uncorrelated: soft and hard threshold,
    clipping, the better neighbour on a grid, projection in the metric of the diagonal.

    Exact when A, and U where there is a costate penalty, are diagonal. Otherwise H~ could fall, so a stage
    takes the best of three: its start, the rule with the diagonal, and the rule with a diagonal that
    majorizes A and U, which never lowers H~. Scales per row stay as they are.
    """

    def model(self, group: StageGroup) -> SetModel:
        """Moments now. ProblemError for a stage that is not affine, or a set or cost that is not known."""
        return set_model(group, "Elementwise", elementwise)


def elementwise(model: ConstrainedQuadratic) -> Matrix:
    """The best of the warm start, the elementwise rule and its safe form."""
    best = model.better(model.warm, separable_step(model, model.warm, model.diagonal))
    return model.better(best, separable_step(model, model.warm, model.majorant))


def separable_step(model: ConstrainedQuadratic, point: Matrix, curvature: Matrix) -> Matrix:
    """The argmax of the model with its quadratic form around a point replaced by a diagonal one."""
    slope = model.gradient(point) + curvature * point
    width, cost = model.width, model.cost
    if isinstance(model.theta, UnitNormRows) and not cost.smooth:
        raise ProblemError(f"{model.group.stage.name}: {model.theta!r} is taken with a quadratic running "
                           "cost or none")
    weight = argmax(model.theta, slope[..., :width], curvature[..., :width], cost, scales(model, point))
    if not model.with_bias:
        return weight
    bias = argmax(model.bias_theta, slope[..., width:].mT, curvature[..., width:].mT, cost,
                  bias_scale(model, point).unsqueeze(2))
    return torch.cat([weight, bias.mT], 2)


def scales(model: ConstrainedQuadratic, point: Matrix) -> Scales:
    """The scale of each row of a discrete set at a point, (stage, row, 1); 1 for other sets."""
    return _scale_of(model.theta, point[..., :model.width])


def bias_scale(model: ConstrainedQuadratic, point: Matrix) -> Float[Tensor, "stage 1"]:
    """The scale of a discrete set of biases, which are one row."""
    return _scale_of(model.bias_theta, point[..., model.width:].mT).squeeze(2)


def _scale_of(theta: object, matrix: Matrix) -> Scales:
    if isinstance(theta, DiscreteSet):
        return theta.encode(matrix)[1].unsqueeze(2)
    return torch.ones_like(matrix[..., :1])
