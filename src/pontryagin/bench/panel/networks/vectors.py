"""Regression from vectors: a random network with noise, in three units of the targets; heavy tails."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from pontryagin.bench.panel.network import Network, Work
from pontryagin.bench.panel.networks.perceptrons import plain
from pontryagin.run.objective import OBJECTIVES
from pontryagin.run.trainer import Batch

NOISE = 0.1
"""Deviation of the targets' noise, in units of their own."""


@dataclass(frozen=True)
class Teacher:
    """y = scale (f(x) + noise), f a network of 64 tanh with random weights, x normal with a random
    covariance over twenty components. Losses are measured without noise."""

    scale: float

    def draw(self, generator: Generator, number: int) -> Batch:
        """Of any number of samples, none of which comes again."""
        x, y = self.exact(generator, number)
        return x, y + self.scale * NOISE * torch.randn(y.shape, generator=generator)

    def exact(self, generator: Generator, number: int) -> Batch:
        """Without noise."""
        mix, first, shift, second = _weights()
        x = torch.randn(number, 20, generator=generator) @ mix
        return x, self.scale * ((x @ first + shift).tanh() @ second)


def _weights() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = Generator().manual_seed(5)
    mix, first, shift, second = (torch.randn(*shape, generator=generator)
                                 for shape in ((20, 20), (20, 64), (64,), (64, 1)))
    return mix / 20**0.5, first * 1.5 / 20**0.5, shift, second * 1.5 / 8


class HeavyTails:
    """Sixteen features with Student's t of three degrees of freedom, of scales from 0.1 to 10, which are
    known only through logarithms of their sizes and signs of some; the noise of the targets has such tails
    too."""

    @staticmethod
    def draw(generator: Generator, number: int) -> Batch:
        """With noise."""
        x, y = HeavyTails.exact(generator, number)
        return x, y + 0.2 * _student(generator, number, 1)

    @staticmethod
    def exact(generator: Generator, number: int) -> Batch:
        """Without noise."""
        x = _student(generator, number, 16)
        size = x.abs().log1p()
        y = size[:, 0] * x[:, 1].sign() + size[:, 2] * size[:, 3] + (x[:, 4] * x[:, 5]).tanh() - size[:, 6]
        return x * torch.logspace(-1, 1, 16), y.unsqueeze(1)


def _student(generator: Generator, *shape: int) -> Tensor:
    """Three degrees of freedom: a normal number over the root mean square of three."""
    return torch.randn(*shape, generator=generator) / torch.randn(
        *shape, 3, generator=generator).square().mean(-1).sqrt()


def _regression(scale: float, depth: int = 2, activation: Callable[[], nn.Module] = nn.ReLU) -> Callable[
        [str | None], Work]:
    teacher = Teacher(scale)
    return lambda _: Work(lambda: plain(20, 1, depth, activation=activation), teacher.draw, 64,
                          OBJECTIVES["squared-error"], 2000, teacher.exact)


def _tabular(_: str | None) -> Work:
    return Work(lambda: plain(16, 1, 3, 128, nn.SiLU), HeavyTails.draw, 128, OBJECTIVES["squared-error"],
                4000, HeavyTails.exact)


VECTORS = (
    Network("regression", "regression", _regression(1.0)),
    Network("regression-x1000", "regression", _regression(1000.0)),
    Network("regression-over-1000", "regression", _regression(1e-3)),
    Network("regression-6-silu", "regression", _regression(1.0, 6, nn.SiLU)),
    Network("tabular-heavy-tails", "tabular", _tabular),
)
