"""Functions of coordinates: a picture through sines, and a solution of Burgers' equation."""

from functools import cache
from itertools import pairwise
from math import pi

import torch
from torch import Generator, Tensor, nn

from pontryagin.bench.panel.network import Network, Work
from pontryagin.run.objective import OBJECTIVES, Objective
from pontryagin.run.trainer import Batch

SIDE = 128
FREQUENCY = 30.0
"""Sitzmann et al. (2020)."""
VISCOSITY = 0.01 / pi
"""Raissi et al. (2019)."""


class Sines(nn.Module):
    """Coordinates to a brightness: layers of sin(30 z), with the initialization of Sitzmann et al. (2020)."""

    def __init__(self, depth: int = 3, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2 if n == 0 else width, width) for n in range(depth))
        self.head = nn.Linear(width, 1)
        for n, layer in enumerate((*self.layers, self.head)):
            bound = 1 / 2 if n == 0 else (6 / width) ** 0.5 / FREQUENCY
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(FREQUENCY * layer(x))
        return self.head(x)


@cache
def picture() -> tuple[Tensor, Tensor]:
    """Coordinates in [-1, 1]^2 of SIDE x SIDE places, and brightness with mean 0 and deviation 1: ripples
    that grow finer, discs with sharp edges, a checkered corner."""
    axis = torch.linspace(-1, 1, SIDE)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    value = torch.sin(40 * (x + 1.2).square() + 3 * y) * torch.exp(-2 * (y - 0.4).square())
    generator = Generator().manual_seed(3)
    for _ in range(12):
        left, top, radius, height = torch.rand(4, generator=generator).tolist()
        inside = (x - 2 * left + 1).square() + (y - 2 * top + 1).square() < (0.05 + 0.2 * radius) ** 2
        value = value + (2 * height - 1) * inside
    checkered = ((10 * x).floor() + (10 * y).floor()).remainder(2) - 0.5
    value = torch.where((x > 0.3) & (y < -0.3), checkered, value)
    return torch.stack([x, y], -1).flatten(0, 1), ((value - value.mean()) / value.std()).reshape(-1, 1)


def _points(generator: Generator, number: int) -> Batch:
    coordinates, brightness = picture()
    rows = torch.randint(len(brightness), (number,), generator=generator)
    return coordinates[rows], brightness[rows]


class Burgers(nn.Module):
    """u(t, x) by four layers of 48 tanh, and what is left of u_t + u u_x = nu u_xx on [0, 1] x [-1, 1], of
    u(0, x) = -sin pi x and of u(t, +-1) = 0.

    In: (sample, point, 2), a point inside, one at t = 0 and one on the rim. Out: (sample, 3), what is left at
    each.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        sizes = [2, width, width, width, width]
        layers = [layer for before, after in pairwise(sizes)
                  for layer in (nn.Linear(before, after), nn.Tanh())]
        self.net = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, points: Tensor) -> Tensor:
        with torch.enable_grad():
            inside = points[:, 0].clone().requires_grad_()
            u = self.net(inside)
            slope, = torch.autograd.grad(u.sum(), inside, create_graph=True)
            bend, = torch.autograd.grad(slope[:, 1].sum(), inside, create_graph=True)
            left = slope[:, 0] + u[:, 0] * slope[:, 1] - VISCOSITY * bend[:, 1]
        start, rim = points[:, 1], points[:, 2]
        begun = self.net(start)[:, 0] + torch.sin(pi * start[:, 1])
        return torch.stack([left, begun, self.net(rim)[:, 0]], 1)


def _domain(generator: Generator, number: int) -> Batch:
    points = torch.rand(number, 3, 2, generator=generator)
    points[..., 1] = 2 * points[..., 1] - 1
    points[:, 1, 0] = 0
    points[:, 2, 1] = points[:, 2, 1].sign()
    return points, torch.zeros(number, 3)


def _residual(output: Tensor, target: Tensor) -> Tensor:
    """The sum of the three squares: (sample,)."""
    return (output - target).square().sum(1)


FIELDS = (
    Network("sine-picture", "sine network", lambda _: Work(
        Sines, _points, 2048, OBJECTIVES["squared-error"], 4096)),
    Network("physics-informed", "PINN", lambda _: Work(
        Burgers, _domain, 256, Objective("residual of Burgers' equation", _residual, False), 2000)),
)
