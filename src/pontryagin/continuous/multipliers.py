"""The augmented Lagrangian of terminal and path constraints."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(eq=False)
class Multipliers:
    """lambda of end(x(T)) = 0 and nu of path <= 0 at t_1 ... t_N, and the penalty rho >= 0.

    Phi becomes Phi + lambda . end + rho/2 |end|^2, and h_n (max(0, nu + rho path)^2 - nu^2) / (2 rho) is
    added at t_{n+1}. `update` changes them in place between minimizations.
    Source: Hestenes 1969; Powell 1969; Rockafellar 1974 for inequalities.
    """

    end: Float[Tensor, "sample constraint"]
    path: Float[Tensor, "interval sample constraint"]
    rho: float

    def end_term(self, sample: Tensor, value: Tensor) -> Float[Tensor, " sample"]:
        """lambda . end + rho/2 |end|^2, sample: whose lambda."""
        return ((self.end[sample] + 0.5 * self.rho * value) * value).sum(-1)

    def path_term(self, interval: Tensor, sample: Tensor, value: Tensor) -> Float[Tensor, " sample"]:
        """(max(0, nu + rho path)^2 - nu^2) / (2 rho), summed over constraints."""
        nu = self.path[interval, sample]
        if self.rho == 0:
            return (nu * value).sum(-1)
        return ((nu + self.rho * value).clamp_min(0).square() - nu.square()).sum(-1) / (2 * self.rho)

    def violation(self, end: Tensor, path: Tensor) -> float:
        """The largest |end| and max(path, -nu / rho): 0 where constraints and complementarity hold."""
        inside = torch.maximum(path, -self.path / self.rho)
        return max((float(each.abs().max()) for each in (end, inside) if each.numel()), default=0.0)

    def update(self, end: Tensor, path: Tensor) -> None:
        """lambda + rho end, max(0, nu + rho path): the multipliers to first order."""
        self.end = self.end + self.rho * end
        self.path = (self.path + self.rho * path).clamp_min(0)
