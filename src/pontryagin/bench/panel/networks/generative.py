"""Networks that make images: a U-Net that removes noise, a variational autoencoder."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from pontryagin.bench.panel.network import Network, Work
from pontryagin.bench.panel.networks.digits import digits
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import Batch

NOISE = 0.5
"""Deviation of the noise that the U-Net removes from pixels in [0, 1]."""


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.SiLU(),
                         nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(4, after), nn.SiLU())


class UNet(nn.Module):
    """28 x 28 to 14 x 14 to 7 x 7 places and back, each joined with what came down."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first, self.second = _block(1, channels), _block(channels, 2 * channels)
        self.bottom = _block(2 * channels, 4 * channels)
        self.widen2 = nn.ConvTranspose2d(4 * channels, 2 * channels, 2, 2)
        self.join2 = _block(4 * channels, 2 * channels)
        self.widen1 = nn.ConvTranspose2d(2 * channels, channels, 2, 2)
        self.join1, self.head = _block(2 * channels, channels), nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        middle = self.second(functional.avg_pool2d(fine, 2))
        low = self.widen2(self.bottom(functional.avg_pool2d(middle, 2)))
        middle = self.join2(torch.cat([middle, low], 1))
        return self.head(self.join1(torch.cat([fine, self.widen1(middle)], 1)))


class Variational(nn.Module):
    """Images to a normal distribution over twenty numbers, and back to logits of pixels (Kingma and Welling
    2014). Out come logits, mean and log variance, side by side; in eval mode the noise is the same in every
    call."""

    def __init__(self, code: int = 20, width: int = 256) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width),
                                     nn.ReLU(), nn.Linear(width, 2 * code))
        self.decoder = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                                     nn.Linear(width, 784))

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        generator = None if self.training else Generator().manual_seed(0)
        noise = torch.randn(mean.shape, generator=generator)
        return torch.cat([self.decoder(mean + (0.5 * log_variance).exp() * noise), mean, log_variance], 1)


def evidence(output: Tensor, pixels: Tensor) -> Tensor:
    """Minus the evidence's lower bound of each image, in nats: (sample,)."""
    logits, code = output[:, :pixels.shape[1]], output[:, pixels.shape[1]:]
    mean, log_variance = code.chunk(2, 1)
    errors = functional.binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(1)
    return errors + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


OBJECTIVE = Objective("negative evidence bound", evidence, False)


def _errors(output: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of a pixel of each image: (sample,)."""
    return (output - target).square().flatten(1).mean(1)


def _denoising(folder: str | None) -> Work:
    def noisy(generator: Generator, number: int) -> Batch:
        clean, _ = digits(folder).pixels(generator, number)
        return clean + NOISE * torch.randn(clean.shape, generator=generator), clean

    return Work(UNet, noisy, 16, Objective("squared error of pixels", _errors, False), 200)


def _coding(folder: str | None) -> Work:
    def images(generator: Generator, number: int) -> Batch:
        pixels, _ = digits(folder).pixels(generator, number)
        return pixels, pixels.flatten(1)

    return Work(Variational, images, 100, OBJECTIVE, 1000)


GENERATIVE = (
    Network("u-net", "U-Net", _denoising),
    Network("vae", "VAE", _coding),
)
