"""The argmax of a separable quadratic over a set of matrices, in closed form.

For each entry v: slope v - curvature/2 v^2 - cost(v), curvature >= 0. With an L1 cost the free argmax is the
soft threshold, with L0 the hard one; an interval clips it, a grid rounds it to the better neighbour; a sparse
set keeps the entries worth most; rows of norm 1 are a projection in the metric of the curvatures.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.problem import (
    L0,
    L1,
    DiscreteSet,
    Finite,
    Interval,
    MatrixSet,
    NoCost,
    NoMaximumError,
    ProblemError,
    Quadratic,
    SparseSet,
    Stage,
    UnitNormRows,
)

Entries = Float[Tensor, "..."]
_BISECTIONS = 80
"""Enough for float64: each halves the bracket, 53 for the mantissa and the rest for its distance from 0."""


@dataclass(frozen=True)
class SeparableCost:
    """quadratic/2 v^2 + absolute |v| + (count if v != 0), for each entry v."""

    quadratic: float = 0.0
    absolute: float = 0.0
    count: float = 0.0

    def __call__(self, value: Tensor) -> Tensor:
        cost = 0.5 * self.quadratic * value.square() + self.absolute * value.abs()
        return cost + self.count * (value != 0) if self.count else cost

    @property
    def smooth(self) -> bool:
        """Whether it is none or quadratic."""
        return self.absolute == 0 and self.count == 0


def separable_cost(stage: Stage, positions: int, method: str) -> SeparableCost:
    """delta L / positions of a stage. ProblemError for a cost that is not known to be a sum over entries."""
    cost = stage.running_cost
    if isinstance(cost, NoCost):
        return SeparableCost()
    for kind, term in ((Quadratic, "quadratic"), (L1, "absolute"), (L0, "count")):
        if isinstance(cost, kind):
            return SeparableCost(**{term: stage.step_size / positions * cost.weight})
    raise ProblemError(f"{method} takes the running costs Quadratic, L1, L0 or none, but {stage.name} has "
                       f"{cost!r}")


def argmax(theta: MatrixSet | None, slope: Entries, curvature: Entries, cost: SeparableCost,
           scale: Entries) -> Entries:
    """The maximizing matrix of the set (None: all matrices). scale: of each entry of a discrete set; kept.

    NoMaximumError: no curvature, an unbounded set, a slope that is not zero.
    """
    if isinstance(theta, SparseSet):
        free = argmax(None, slope, curvature, cost, scale)
        return torch.where(theta.support(_value(free, slope, curvature, cost).clamp_min(0)), free, 0.0)
    if isinstance(theta, UnitNormRows):
        return _on_sphere(slope, curvature.expand_as(slope))
    if isinstance(theta, DiscreteSet):
        return _on_grid(theta, slope, curvature, cost, scale)
    if isinstance(theta, Finite):
        values = theta.candidates(slope)
        return values[_value(values, slope.unsqueeze(-1), curvature.unsqueeze(-1), cost).argmax(-1)]
    if theta is not None and not isinstance(theta, Interval):
        raise ProblemError(f"no closed form is known for the set {theta!r}")
    low, high = (-torch.inf, torch.inf) if theta is None else theta.bounds
    best = _free(slope, curvature, cost).clamp(low, high)
    if best.isinf().any():
        raise NoMaximumError(f"H has no maximum over {'R^p' if theta is None else theta!r} without a "
                             "penalty: use rho_state > 0")
    return _or_zero(best, slope, curvature, cost) if low <= 0 <= high else best


def improved(theta: MatrixSet | None, old: Entries, slope: Entries, curvature: Entries, cost: SeparableCost,
             scale: Entries) -> Entries:
    """The argmax where it beats the old entry, for sets that are products over entries; ties keep the old."""
    new = argmax(theta, slope, curvature, cost, scale)
    return torch.where(_value(new, slope, curvature, cost) > _value(old, slope, curvature, cost), new, old)


def _value(entry: Tensor, slope: Tensor, curvature: Tensor, cost: SeparableCost) -> Tensor:
    return (slope - 0.5 * curvature * entry) * entry - cost(entry)


def _free(slope: Tensor, curvature: Tensor, cost: SeparableCost) -> Tensor:
    """The argmax over all numbers, without the L0 cost."""
    soft = slope.sign() * (slope.abs() - cost.absolute).clamp_min(0) if cost.absolute else slope
    total = (curvature + cost.quadratic).expand_as(soft)
    return torch.where(soft == 0, 0.0, soft / total)


def _or_zero(entry: Tensor, slope: Tensor, curvature: Tensor, cost: SeparableCost) -> Tensor:
    """Zero where L0 makes it better."""
    return torch.where(_value(entry, slope, curvature, cost) > 0, entry, 0.0) if cost.count else entry


def _on_grid(theta: DiscreteSet, slope: Tensor, curvature: Tensor, cost: SeparableCost,
             scale: Tensor) -> Tensor:
    """A concave function of the codes: one of the two neighbours of its free argmax."""
    grid = theta.grid
    near = grid.nearest(_free(slope, curvature, cost) / scale)
    best = near * scale
    for step in (-grid.step, grid.step):
        other = (near + step).clamp(-grid.limit, grid.limit) * scale
        better = _value(other, slope, curvature, cost) > _value(best, slope, curvature, cost)
        best = torch.where(better, other, best)
    return _or_zero(best, slope, curvature, cost) if 0 in grid.codes else best


def _on_sphere(slope: Tensor, curvature: Tensor) -> Tensor:
    """v = slope / (curvature + mu) with the mu > -min curvature for which |v| = 1, by bisection."""
    least = curvature.amin(-1, keepdim=True)
    above = curvature - least
    norm = torch.linalg.vector_norm(slope, dim=-1, keepdim=True)
    low, high = torch.zeros_like(norm), norm + torch.finfo(slope.dtype).tiny
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        long = torch.linalg.vector_norm(slope / (above + middle), dim=-1, keepdim=True) > 1
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    point = slope / (above + high)
    rest = (1 - point.square().sum(-1, keepdim=True)).clamp_min(0)
    place = above.argmin(-1, keepdim=True)  # what the slope does not fill goes where curvature is least
    along = point.gather(-1, place)
    sign = torch.where(along < 0, -1.0, 1.0)
    point = point.scatter(-1, place, sign * (along.square() + rest).sqrt())
    return point / torch.linalg.vector_norm(point, dim=-1, keepdim=True)
