"""Fully connected networks on images: linear, shallow, wide, deep, with tiny batches."""

from collections.abc import Callable
from math import sqrt

from torch import Tensor, nn

from pontryagin.bench.panel.network import Network, Work
from pontryagin.bench.panel.networks.digits import digits
from pontryagin.run.objective import OBJECTIVES

Build = Callable[[], nn.Module]


def plain(inputs: int, outputs: int, depth: int, width: int = 64, activation: Build = nn.ReLU,
          norm: Callable[[int], nn.Module] | None = None) -> nn.Sequential:
    """depth hidden layers as torch initializes them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), *([norm(width)] if norm else []), activation()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class ResidualLayer(nn.Module):
    """x + step tanh(W x + b)."""

    def __init__(self, width: int, step: float) -> None:
        super().__init__()
        self.map, self.step = nn.Linear(width, width), step

    def forward(self, x: Tensor) -> Tensor:
        return x + self.step * self.map(x).tanh()


def residual(depth: int, width: int = 64) -> nn.Sequential:
    """A projection, depth residual layers of step 1 / sqrt(depth), a linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width),
                         *(ResidualLayer(width, 1 / sqrt(depth)) for _ in range(depth)), nn.Linear(width, 10))


def _on_digits(build: Build, size: int = 100) -> Callable[[str | None], Work]:
    return lambda folder: Work(build, digits(folder).labelled, size, OBJECTIVES["cross-entropy"], 2000)


def _layers(depth: int, **options: object) -> Build:
    return lambda: plain(784, 10, depth, **options)  # type: ignore[arg-type]


PERCEPTRONS = (
    Network("linear", "linear", _on_digits(_layers(0))),
    Network("mlp-2", "MLP", _on_digits(_layers(2))),
    Network("mlp-2-batch-8", "MLP", _on_digits(_layers(2), 8)),
    Network("mlp-2-batch-2", "MLP", _on_digits(_layers(2), 2)),
    Network("mlp-2-wide", "MLP", _on_digits(_layers(2, width=1024))),
    Network("mlp-3-sigmoid", "MLP", _on_digits(_layers(3, activation=nn.Sigmoid))),
    Network("mlp-10", "MLP", _on_digits(_layers(10))),
    Network("mlp-10-tanh", "MLP", _on_digits(_layers(10, activation=nn.Tanh))),
    Network("mlp-20-layer-norm", "MLP", _on_digits(_layers(20, activation=nn.GELU, norm=nn.LayerNorm))),
    Network("residual-mlp-100", "residual MLP", _on_digits(lambda: residual(100), 128)),
)
