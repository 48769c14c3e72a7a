"""A change of a stage's control."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """dW, and db where the stage has a bias; or minus their gradients, (G, g)."""

    weight: Float[Tensor, "group output input"]
    bias: Float[Tensor, "group output"] | None

    def dot(self, other: "Change") -> float:
        """<dW, dW'> + <db, db'>."""
        product = (self.weight * other.weight).sum().item()
        if self.bias is None or other.bias is None:
            return product
        return product + (self.bias * other.bias).sum().item()

    def is_finite(self) -> bool:
        """Whether all entries are."""
        return all(bool(part.isfinite().all()) for part in (self.weight, self.bias) if part is not None)

    def times(self, factor: float) -> "Change":
        """So many times this change."""
        return Change(self.weight * factor, None if self.bias is None else self.bias * factor)

    def add(self, other: "Change", factor: float) -> None:
        """So many times another change added to this one, in its place."""
        self.weight.add_(other.weight, alpha=factor)
        if self.bias is not None and other.bias is not None:
            self.bias.add_(other.bias, alpha=factor)
