"""A generator and a discriminator of images, each with an optimizer of its own."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.zoo.family import Batch, Family, Optimizers
from benchmarks.zoo.pictures import real

_CODES = 16


def _pair() -> nn.Module:
    generator = nn.Sequential(
        nn.ConvTranspose2d(_CODES, 32, 4, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh())
    discriminator = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 4),
        nn.Flatten(0))
    return nn.ModuleDict({"generator": generator, "discriminator": discriminator})


def _made(model: nn.Module, count: int) -> Tensor:
    return model["generator"](torch.randn(count, _CODES, 1, 1))


def _energy_distance(model: nn.Module, batch: Batch) -> Tensor:
    """2 E|x - y| - E|x - x'| - E|y - y'| between true and made images: 0 where their distributions are the
    same."""
    x = batch["x"].flatten(1)
    y = _made(model, len(x)).flatten(1)
    between = len(x) * (len(x) - 1)
    return 2 * torch.cdist(x, y).mean() - (torch.cdist(x, x).sum() + torch.cdist(y, y).sum()) / between


def _play(family: Family, model: nn.Module, batch: Batch, optimizers: Optimizers) -> float:
    """A step of the discriminator, one of the generator; the distance of what was made from the truth."""
    x, (make, judge) = batch["x"], optimizers
    y, discriminator = _made(model, len(x)), model["discriminator"]
    judge.zero_grad()
    (functional.softplus(-discriminator(x)).mean()
     + functional.softplus(discriminator(y.detach())).mean()).backward()
    judge.step()
    make.zero_grad()
    functional.softplus(-discriminator(y)).mean().backward()
    make.step()
    with torch.no_grad():
        return family.loss(model, batch).item()


ADVERSARIAL = {"dcgan": Family(_pair, real, _energy_distance, lambda model: list(model.values()), _play)}
