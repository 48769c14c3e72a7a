"""A seeded perturbation of the controls before an argmax."""

from dataclasses import dataclass, field
from math import isfinite

import torch

from pontryagin.problem import ControlProblem, Controls, ProblemError


@dataclass
class Perturbation:
    """An iterative argmax starts from theta + scale * N(0, 1) instead of theta.

    It breaks symmetries at which the gradient of H vanishes, such as equal components. Trajectory and
    penalties still refer to theta. The closed form does not depend on the start. Perturbed starts are
    projected on Theta.

    scale: finite and >= 0, in units of the controls; the authors' released code uses 0.005 on the sine.
    seed: equal seeds give equal starts.
    """

    scale: float
    seed: int = 0
    _generator: torch.Generator | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (isfinite(self.scale) and self.scale >= 0):
            raise ProblemError(f"perturbation scale: expected a finite number >= 0, found {self.scale}")

    def __call__(self, problem: ControlProblem, controls: Controls) -> Controls:
        """Perturbed copies, different at each call, the same for equal seeds."""
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(self.seed)
        starts = []
        for stage, control in zip(problem.stages, controls, strict=True):
            noise = torch.randn(control.shape, generator=self._generator, dtype=torch.float64)
            starts.append(stage.admissible.project(control + self.scale * noise.to(control)))
        return tuple(starts)
