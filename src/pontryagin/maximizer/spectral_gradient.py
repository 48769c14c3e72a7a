"""Spectral projected gradients: any stage, and any set that can project, for many entries."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer.protocol import Controls, EvaluatedModel
from pontryagin.problem import ProblemError
from pontryagin.trajectory import StageGroup

_LEAST, _MOST = 1e-12, 1e12
"""Of a length, where the curvature along the last move is no guide."""


@dataclass(frozen=True)
class SpectralGradient:
    """theta <- project(theta + t grad H~), t = <s, s> / <s, -y> of the last move s and change y of the
    gradient, halved until H~ rises: the diagonal quasi-Newton step of Barzilai and Borwein (1988).

    Each stage has its own t. H~ never falls. Over a convex set it converges to where no direction into the
    set ascends; over others (finite, sparse) to a point that its own step does not improve.

    iterations: at most, >= 1; halvings: of a step, >= 1. Raises ProblemError for other numbers.
    Source: Birgin, Martinez and Raydan 2000, with a monotone line search.
    """

    iterations: int = 40
    halvings: int = 25

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.halvings < 1:
            raise ProblemError("SpectralGradient: expected iterations >= 1 and halvings >= 1, found "
                               f"{self.iterations} and {self.halvings}")

    def model(self, group: StageGroup) -> "SpectralGradientModel":
        """Nothing is computed before maximize."""
        return SpectralGradientModel(group, self)


class SpectralGradientModel(EvaluatedModel):
    """H~ as a function to be evaluated."""

    def __init__(self, group: StageGroup, settings: SpectralGradient) -> None:
        super().__init__(group)
        self.settings = settings

    def maximize(self, penalties: Penalties) -> Controls:
        """Not lower than at the start."""
        project, point = self.group.stage.admissible.project, self.group.start
        gradient, value = self._slope(point, penalties)
        length = (1 / gradient.abs().amax(1).clamp_min(_LEAST)).clamp_max(1.0)
        for _ in range(self.settings.iterations):
            trial, rises = point, torch.zeros_like(value, dtype=torch.bool)
            for _ in range(self.settings.halvings):
                new = project(point + length[:, None] * gradient)
                trial = torch.where(rises[:, None], trial, new)
                rises = rises | (self.values(trial, penalties) > value)
                if rises.all() or torch.equal(trial, point):
                    break
                length = torch.where(rises, length, length / 4)
            trial = torch.where(rises[:, None], trial, point)
            if torch.equal(trial, point):
                break
            new_gradient, value = self._slope(trial, penalties)
            length = _spectral(trial - point, new_gradient - gradient, length)
            point, gradient = trial, new_gradient
        return point

    def _slope(self, controls: Controls, penalties: Penalties) -> tuple[Controls, Tensor]:
        self.evaluations += 1
        gradient, value = vmap(grad_and_value(self.augmented(penalties)))(controls,
                                                                          *self.arguments(penalties))
        return gradient, value.detach()


def _spectral(move: Controls, change: Controls, last: Tensor) -> Tensor:
    """<s, s> / <s, -y> where H~ curves downwards along s, else four times the last."""
    curvature = -(move * change).sum(1)
    found = move.square().sum(1) / torch.where(curvature > 0, curvature, 1.0)
    return torch.where(curvature > 0, found, 4 * last).clamp(_LEAST, _MOST)
