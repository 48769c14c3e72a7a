"""A seeded perturbation of the controls before an argmax."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

import torch

from pontryagin.problem import ControlProblem, Controls, ProblemError


@dataclass
class Perturbation:
    """An iterative argmax starts from theta + scale * noise instead of theta.

    It breaks symmetries at which the gradient of H vanishes, such as equal components. Trajectory and
    penalties still refer to theta. The closed form does not depend on the start. Perturbed starts are
    projected on Theta.

    scale: finite and >= 0, in units of the controls. seed: equal seeds give equal starts. distribution: of
    the noise, N(0, 1) or uniform on [-1, 1]; the authors' released code has 0.005 times the latter on the
    sine.
    """

    scale: float
    seed: int = 0
    distribution: Literal["normal", "uniform"] = "normal"
    _generator: torch.Generator | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (isfinite(self.scale) and self.scale >= 0):
            raise ProblemError(f"perturbation scale: expected a finite number >= 0, found {self.scale}")
        if self.distribution not in ("normal", "uniform"):
            raise ProblemError("perturbation distribution: expected normal or uniform, found "
                               f"{self.distribution!r}")

    def __call__(self, problem: ControlProblem, controls: Controls) -> Controls:
        """Perturbed copies, different at each call, the same for equal seeds."""
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(self.seed)
        starts = []
        for stage, control in zip(problem.stages, controls, strict=True):
            noise = self._draw(control.shape)
            starts.append(stage.admissible.project(control + self.scale * noise.to(control)))
        return tuple(starts)

    def _draw(self, shape: torch.Size) -> torch.Tensor:
        if self.distribution == "uniform":
            return 2 * torch.rand(shape, generator=self._generator, dtype=torch.float64) - 1
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)
