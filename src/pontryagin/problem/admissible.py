"""Admissible sets Theta: the values that a control may take."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


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


@dataclass(frozen=True)
class RealSpace:
    """Theta = R^p: every finite control is admissible."""

    unconstrained = True

    def project(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage control"]:
        """The control itself."""
        return control

    def contains(self, control: Float[Tensor, "*stage control"]) -> Bool[Tensor, "*stage"]:
        """Whether each control is finite."""
        return control.isfinite().all(dim=-1)
