"""What an admissible set is: of whole controls, or of the matrices that a control is made of."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from pontryagin.problem.admissible.rows import Rows


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
    def project(self, weight: Float[Tensor, "*stage row input"]) -> Float[Tensor, "*stage row input"]:
        """A nearest point of the set in the Frobenius norm."""

    @abstractmethod
    def contains(self, weight: Float[Tensor, "*stage row input"]) -> Bool[Tensor, "*stage"]:
        """Whether each matrix lies in the set, exactly."""

    def within(self, rows: Rows) -> "MatrixSet":
        """The set as it is for a weight with these rows: itself, unless it asks which inputs belong
        together."""
        return self

    def check(self, rows: int, inputs: int) -> None:  # noqa: B027 - most sets take any shape
        """ProblemError when no (rows, inputs) matrix fits the set."""
