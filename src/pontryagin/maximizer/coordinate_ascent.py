"""Coordinate ascent on the exact quadratic model: correlated inputs count."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pontryagin.maximizer.constrained_quadratic import ConstrainedQuadratic, Matrix, SetModel, set_model
from pontryagin.maximizer.discrete_rows import enumerable, enumerated, fitted_scales
from pontryagin.maximizer.elementwise import bias_scale, elementwise, scales
from pontryagin.maximizer.entrywise import improved
from pontryagin.maximizer.majorized_ascent import majorized
from pontryagin.problem import DiscreteSet, MatrixSet, ProblemError, SparseSet, UnitNormRows
from pontryagin.trajectory import StageGroup

Block = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CoordinateAscent:
    """max over W in Theta of H~, entry after entry, each at its exact best given all others, until a sweep
    changes nothing.

    Begins at the elementwise solution where that is better than the controls, so it is never worse than
    either. Entries that share neither row nor column (channel, of a convolution) do not interact, and without
    a costate penalty neither do rows: such entries move together. Scales per row are set by least squares in
    the metric between sweeps. Sparse sets change places by majorized steps and entries by sweeps.
    Rows of a discrete set with few candidates, without a costate penalty, are enumerated instead: the global
    argmax. On boxes with none or a convex cost it is global too, in the limit of many sweeps.

    sweeps: at most; a bound, since it ends by itself where nothing changes. exact_up_to: so many candidates
    of a row are enumerated, 0: none; 4096 are those of 12 binary entries, few enough to be held at once.
    """

    sweeps: int = 100
    exact_up_to: int = 4096

    def __post_init__(self) -> None:
        if self.sweeps < 1 or self.exact_up_to < 0:
            raise ProblemError("CoordinateAscent: expected sweeps >= 1 and exact_up_to >= 0, found "
                               f"{self.sweeps} and {self.exact_up_to}")

    def model(self, group: StageGroup) -> SetModel:
        """Moments now. ProblemError for a stage that is not affine, or a set or cost that is not known."""
        model = set_model(group, "CoordinateAscent", self._argmax)
        for theta, whole in ((model.theta, UnitNormRows), (model.bias_theta, UnitNormRows | SparseSet)):
            if isinstance(theta, whole):
                raise ProblemError(f"{group.stage.name}: the entries of {theta!r} cannot move one by one: "
                                   "use MajorizedAscent")
        return model

    def _argmax(self, model: ConstrainedQuadratic) -> Matrix:
        point = elementwise(model)
        if enumerable(model, self.exact_up_to):
            return model.better(point, enumerated(model))
        return ascend(model, point, self.sweeps)


def ascend(model: ConstrainedQuadratic, point: Matrix, sweeps: int) -> Matrix:
    """Sweeps, new places of sparse sets and new scales in turn, until none improves a stage."""
    blocks = _blocks(model)
    for _ in range(sweeps):
        before = point
        free = None
        if isinstance(model.theta, SparseSet):
            point = majorized(model, point, 1)
            free = point[..., :model.width] != 0
        point = model.better(point, _sweep(model, point, blocks, free))
        if isinstance(model.theta, DiscreteSet) and model.theta.scale == "row":
            point = model.better(point, fitted_scales(model, model.theta, point))
        if torch.equal(point, before):
            break
    return point


def _sweep(model: ConstrainedQuadratic, point: Matrix, blocks: list[Block], free: Tensor | None) -> Matrix:
    """Every entry once; with a mask of free entries only these."""
    point, gradient, width = point.clone(), model.gradient(point), model.width
    scale = scales(model, point)
    each: MatrixSet | None = None if isinstance(model.theta, SparseSet) else model.theta
    for rows, columns in blocks:
        old, curvature = point[:, rows, columns], model.diagonal[:, rows, columns]
        slope = gradient[:, rows, columns] + curvature * old
        new = improved(each, old, slope, curvature, model.cost, scale[:, rows, 0])
        if free is not None:
            new = torch.where(free[:, rows, columns], new, old)
        _move(model, point, gradient, rows, columns, new - old, new)
    if model.with_bias:
        old, curvature = point[..., width], model.diagonal[..., width]
        slope = gradient[..., width] + curvature * old
        new = improved(model.bias_theta, old, slope, curvature, model.cost, bias_scale(model, point))
        every = torch.arange(old.shape[1], device=old.device)
        _move(model, point, gradient, every, torch.full_like(every, width), new - old, new)
    return point


def _move(model: ConstrainedQuadratic, point: Matrix, gradient: Matrix, rows: Tensor, columns: Tensor,
          change: Tensor, new: Tensor) -> None:
    """Set entries and bring the gradient up to date."""
    if not change.any():
        return
    point[:, rows, columns] = new
    gradient[:, rows] -= change.unsqueeze(2) * model.inputs[:, columns]
    if model.costates is not None and int(columns[0]) < model.width:
        taps = model.form.taps
        # (stage, output, tap, entry)
        coupled = model.costates.unflatten(1, (-1, taps))[..., rows * taps + columns % taps]
        by_tap = gradient[..., :model.width].unflatten(2, (-1, taps))
        by_tap[:, :, columns // taps] -= (coupled * change[:, None, None]).transpose(2, 3)


def _blocks(model: ConstrainedQuadratic) -> list[Block]:
    """Entries of W that do not interact: columns; or, when a costate penalty couples the rows, wrapped
    diagonals of outputs and channels, tap by tap."""
    rows, taps = model.origin.shape[1], model.form.taps
    device = model.origin.device
    if model.costates is None:
        every = torch.arange(rows, device=device)
        return [(every, torch.full_like(every, column)) for column in range(model.width)]
    channels = model.width // taps
    short, long = torch.arange(min(rows, channels), device=device), max(rows, channels)
    blocks = []
    for shift in range(long):
        other = (short + shift) % long
        row, channel = (short, other) if rows <= channels else (other, short)
        blocks += [(row, channel * taps + tap) for tap in range(taps)]
    return blocks
