"""The sine problem of [LCTE] Figure 1: what is fitted, and where the controls start."""

from dataclasses import dataclass, field
from functools import cached_property
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pontryagin.papers.sine.setup import FIGURES, SineSetup
from pontryagin.problem import ControlProblem, Quadratic, SquaredError, euler, split_euler

Theta = Float[Tensor, "layer control"]
"""All controls, a row a layer: W by rows, then b."""


def figure_title(figure: str) -> str:
    """The paper's figure by its letter."""
    return f"Figure 1({figure})" + (f", {FIGURES[figure]}" if figure in FIGURES else "")


def total(state: Float[Tensor, "sample component"]) -> Float[Tensor, " sample"]:
    """The prediction: the sum of the final state."""
    return state.sum(-1)


@dataclass(frozen=True)
class SineTask:
    """A setup with its data and initial controls, float64; both depend on (setup, figure, seed) alone."""

    figure: str
    seed: int
    setup: SineSetup = field(default_factory=SineSetup)

    @cached_property
    def train(self) -> tuple[Tensor, Tensor]:
        """Inputs (sample, component), uniform, and targets (sample,)."""
        return self._samples(2 * self.seed)

    @cached_property
    def test(self) -> tuple[Tensor, Tensor]:
        """As many more."""
        return self._samples(2 * self.seed + 1)

    def start(self) -> Theta:
        """The initial controls."""
        generator, setup = torch.Generator().manual_seed(self.seed), self.setup
        theta = torch.zeros(setup.layers, setup.entries, dtype=torch.float64)
        if self.figure == "a":
            weights, scale = setup.width ** 2, setup.weight_scale
            if scale:
                nn.init.trunc_normal_(theta[:, :weights], std=scale, a=-2 * scale, b=2 * scale,
                                      generator=generator)
            theta[:, weights:] = setup.bias
            return theta
        if setup.distribution == "uniform":
            noise = 2 * torch.rand(theta.shape, dtype=theta.dtype, generator=generator) - 1
        else:
            noise = torch.randn(theta.shape, dtype=theta.dtype, generator=generator)
        return theta + setup.noise * noise

    def problem(self) -> ControlProblem:
        """N stages x + delta tanh(W x + b), the paper's."""
        setup = self.setup
        layer = nn.Sequential(nn.Linear(setup.width, setup.width, dtype=torch.float64), nn.Tanh())
        stages = euler(layer, setup.delta, setup.layers, running_cost=self._cost(setup.delta))
        return ControlProblem(stages, SquaredError(total), *self.train)

    def split_problem(self, steps: int | None = None) -> ControlProblem:
        """The same network as affine stages, each followed by a step without control; T is the same for all
        steps, and so is what the regularizer costs a control of constant theta."""
        setup = self.setup
        steps = setup.layers if steps is None else steps
        stages = split_euler(torch.tanh, setup.width, setup.duration / steps, steps,
                             running_cost=self._cost(setup.delta), dtype=torch.float64)
        return ControlProblem(stages, SquaredError(total), *self.train)

    def loss(self, theta: Theta, samples: tuple[Tensor, Tensor] | None = None) -> Float[Tensor, ""]:
        """Mean squared error, by the plain loop over layers that the baselines differentiate."""
        inputs, target = self.train if samples is None else samples
        return (total(self.predict(theta, inputs)) - target).square().mean()

    def objective(self, theta: Theta) -> Float[Tensor, ""]:
        """J: the train loss and the regularizer."""
        loss = self.loss(theta)
        return loss + 0.5 * self.setup.regularizer * theta.square().sum() if self.setup.regularizer else loss

    @torch.no_grad()
    def losses(self, theta: Theta) -> tuple[float, float]:
        """Train and test loss."""
        return self.loss(theta).item(), self.loss(theta, self.test).item()

    def predict(self, theta: Theta, inputs: Float[Tensor, "sample component"]
                ) -> Float[Tensor, "sample component"]:
        """The final states."""
        return self.trajectory(theta, inputs)[-1]

    def trajectory(self, theta: Theta, inputs: Float[Tensor, "sample component"]) -> list[Tensor]:
        """x_0 ... x_N."""
        states, width, delta = [inputs], self.setup.width, self.setup.delta
        weights = theta[:, :width ** 2].unflatten(1, (width, width)).mT
        for weight, bias in zip(weights.unbind(), theta[:, width ** 2:].unbind(), strict=True):
            states.append(torch.add(states[-1], torch.tanh(torch.addmm(bias, states[-1], weight)),
                                    alpha=delta))
        return states

    def inputs_at(self, points: Float[Tensor, " point"]) -> Float[Tensor, "point component"]:
        """x_0 for given inputs: the input in every component."""
        return points.unsqueeze(1).expand(-1, self.setup.width).contiguous()

    def _cost(self, delta: float) -> Quadratic | None:
        """L, of which J has delta sum_n L: the regularizer has no delta."""
        return Quadratic(self.setup.regularizer / delta) if self.setup.regularizer else None

    def _samples(self, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        points = (2 * torch.rand(self.setup.samples, dtype=torch.float64, generator=generator) - 1) * pi
        return self.inputs_at(points), points.sin()
