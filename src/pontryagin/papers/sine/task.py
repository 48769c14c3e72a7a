"""The sine problem of [LCTE] Figure 1: what is fitted, and where the controls start."""

from dataclasses import dataclass
from functools import cached_property
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pontryagin.problem import ControlProblem, SquaredError, euler, split_euler

FIGURES = {"a": "good initialization", "b": "poor initialization"}
WIDTH, LAYERS, STEP_SIZE, SAMPLES = 5, 20, 0.25, 1000
NOISE = 5e-3
_WEIGHTS = WIDTH * WIDTH

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
    """y = sin x on [-pi, pi] by x_{n+1} = x_n + delta tanh(W_n x_n + b_n), n = 0 ... 19, delta = 1/4, T = 5.

    x_0 holds the input five times. Cost: squared error of the sum of the final state, mean over 1000 samples;
    no regularizer; float64. Figure "a": W truncated normal of standard deviation 0.1, b = 0.1. Figure "b":
    zeros plus normal noise of 5e-3, for every method the same. Data and controls depend on (figure, seed)
    alone.
    """

    figure: str
    seed: int

    @cached_property
    def train(self) -> tuple[Tensor, Tensor]:
        """1000 inputs (sample, 5), uniform, and targets (sample,)."""
        return _samples(2 * self.seed)

    @cached_property
    def test(self) -> tuple[Tensor, Tensor]:
        """1000 more."""
        return _samples(2 * self.seed + 1)

    def start(self) -> Theta:
        """The initial controls."""
        generator = torch.Generator().manual_seed(self.seed)
        theta = torch.zeros(LAYERS, _WEIGHTS + WIDTH, dtype=torch.float64)
        if self.figure == "a":
            nn.init.trunc_normal_(theta[:, :_WEIGHTS], std=0.1, a=-0.2, b=0.2, generator=generator)
            theta[:, _WEIGHTS:] = 0.1
            return theta
        return theta + NOISE * torch.randn(theta.shape, dtype=theta.dtype, generator=generator)

    def problem(self) -> ControlProblem:
        """Twenty stages x + delta tanh(W x + b), the paper's."""
        layer = nn.Sequential(nn.Linear(WIDTH, WIDTH, dtype=torch.float64), nn.Tanh())
        return ControlProblem(euler(layer, STEP_SIZE, LAYERS), SquaredError(total), *self.train)

    def split_problem(self, steps: int = LAYERS) -> ControlProblem:
        """The same network as affine stages, each followed by a step without control; T = 5 for all steps."""
        stages = split_euler(torch.tanh, WIDTH, STEP_SIZE * LAYERS / steps, steps, dtype=torch.float64)
        return ControlProblem(stages, SquaredError(total), *self.train)

    def loss(self, theta: Theta, samples: tuple[Tensor, Tensor] | None = None) -> Float[Tensor, ""]:
        """Mean squared error, by the plain loop over layers that the baselines differentiate."""
        inputs, target = self.train if samples is None else samples
        return (total(predict(theta, inputs)) - target).square().mean()

    @torch.no_grad()
    def losses(self, theta: Theta) -> tuple[float, float]:
        """Train and test loss."""
        return self.loss(theta).item(), self.loss(theta, self.test).item()


def predict(theta: Theta, inputs: Float[Tensor, "sample component"]) -> Float[Tensor, "sample component"]:
    """The final states."""
    return trajectory(theta, inputs)[-1]


def trajectory(theta: Theta, inputs: Float[Tensor, "sample component"]) -> list[Tensor]:
    """x_0 ... x_20."""
    states = [inputs]
    weights = theta[:, :_WEIGHTS].unflatten(1, (WIDTH, WIDTH)).mT
    for weight, bias in zip(weights.unbind(), theta[:, _WEIGHTS:].unbind(), strict=True):
        states.append(torch.add(states[-1], torch.tanh(torch.addmm(bias, states[-1], weight)),
                                alpha=STEP_SIZE))
    return states


def inputs_at(points: Float[Tensor, " point"]) -> Float[Tensor, "point component"]:
    """x_0 for given inputs: the input in every component."""
    return points.unsqueeze(1).expand(-1, WIDTH).contiguous()


def _samples(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = (2 * torch.rand(SAMPLES, dtype=torch.float64, generator=generator) - 1) * pi
    return inputs_at(points), points.sin()
