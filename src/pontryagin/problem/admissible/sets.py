"""What an admissible set is, of whole controls or of the matrices that a control is made of, and the sets
without codes or zeros: all of R^p, intervals, rows of norm 1."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf, isnan
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.errors import ProblemError
from pontryagin.problem.admissible.rows import Rows

Matrix = Float[Tensor, "*stage row input"]


@runtime_checkable
class AdmissibleSet(Protocol):
    """A closed set Theta of controls.

    A maximizer asks `unconstrained` whether it may ignore the set, and otherwise either handles the
    set by its type or refuses it by name. Sets compare equal when they hold the same controls.
    """

    @property
    def unconstrained(self) -> bool:
        """Whether Theta is all of R^p."""

    def project(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage control"]:
        """A nearest point of Theta in the Euclidean norm."""

    def contains(self, control: Float[Tensor, "*stage control"]) -> Bool[Tensor, "*stage"]:
        """Whether each control lies in Theta, exactly."""


class MatrixSet(ABC):
    """A closed set of matrices W (row, input), a product of sets of rows: row i makes output i.

    Sets are frozen dataclasses: equal when they hold the same matrices. `Rows` says how a weight becomes such
    a matrix.
    """

    @abstractmethod
    def project(self, weight: Matrix) -> Matrix:
        """A nearest point of the set in the Frobenius norm."""

    @abstractmethod
    def contains(self, weight: Matrix) -> Bool[Tensor, "*stage"]:
        """Whether each matrix lies in the set, exactly."""

    def within(self, rows: Rows) -> "MatrixSet":
        """The set for a weight with these rows: itself, unless it asks which inputs belong together."""
        return self

    def check(self, rows: int, inputs: int) -> None:  # noqa: B027 - most sets take any shape
        """ProblemError when no (rows, inputs) matrix fits the set."""


@dataclass(frozen=True)
class RealSpace:
    """Theta = R^p: every finite control is admissible."""

    unconstrained = True

    def project(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage control"]:
        return control

    def contains(self, control: Float[Tensor, "*stage control"]) -> Bool[Tensor, "*stage"]:
        """Whether each control is finite."""
        return control.isfinite().all(dim=-1)


class Interval(MatrixSet):
    """low <= W_ij <= high for every entry; a bound may be infinite."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """low, high."""

    def project(self, weight: Matrix) -> Matrix:
        """Every entry clipped."""
        return weight.clamp(*self.bounds)

    def contains(self, weight: Matrix) -> Bool[Tensor, "*stage"]:
        """Whether all entries are finite and within the bounds."""
        inside = weight.isfinite() & (weight == weight.clamp(*self.bounds))
        return inside.flatten(-2).all(-1)


@dataclass(frozen=True)
class Box(Interval):
    """low <= W_ij <= high."""

    low: float | int
    high: float | int

    def __post_init__(self) -> None:
        if isnan(self.low) or isnan(self.high) or self.low > self.high or inf in (self.low, -self.high):
            raise ProblemError(f"Box: expected low <= high, found low={self.low}, high={self.high}: the set "
                               "is empty")

    @property
    def bounds(self) -> tuple[float, float]:
        return float(self.low), float(self.high)


@dataclass(frozen=True)
class NonNegative(Interval):
    """W_ij >= 0."""

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, inf


@dataclass(frozen=True)
class UnitNormRows(MatrixSet):
    """sum_j W_ij^2 = 1 for every row, to rounding in W's dtype: |norm - 1| <= eps * (4 + sqrt(inputs))."""

    def project(self, weight: Matrix) -> Matrix:
        """Every row divided by its norm. ProblemError for a row of zeros: the whole sphere is as near."""
        norm = torch.linalg.vector_norm(weight, dim=-1, keepdim=True)
        if not (norm > 0).all():
            raise ProblemError("UnitNormRows: a row of zeros (or NaN) has no nearest point of norm 1; start "
                               "from other weights")
        once = weight / norm
        return once / torch.linalg.vector_norm(once, dim=-1, keepdim=True)  # again, for tiny and huge rows

    def contains(self, weight: Matrix) -> Bool[Tensor, "*stage"]:
        """Whether all norms are 1 to rounding: 4 eps of the division, and sqrt(inputs) eps of the sum."""
        norm = torch.linalg.vector_norm(weight.double(), dim=-1)
        return ((norm - 1).abs() <= torch.finfo(weight.dtype).eps * (4 + weight.shape[-1] ** 0.5)).all(-1)
