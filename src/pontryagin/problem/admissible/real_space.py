"""All of R^p."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


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
