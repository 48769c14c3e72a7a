"""Image models in plain torch: a U-Net, an autoencoder of distributions, an MLP-Mixer, reparametrized
weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from benchmarks.zoo.family import Batch, Family
from benchmarks.zoo.pictures import CLASSES, denoised, labelled, real, small


def _classify(model: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(model(batch["pixel_values"]), batch["labels"])


def _reconstruct(model: nn.Module, batch: Batch) -> Tensor:
    return functional.mse_loss(model(batch["x"]), batch["y"])


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.SiLU())


class UNet(nn.Module):
    """Two levels down by strided, two up by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.bottom = _block(3, 16), _block(32, 32), _block(64, 64)
        self.down1, self.down2 = nn.Conv2d(16, 32, 2, 2), nn.Conv2d(32, 64, 2, 2)
        self.up2, self.up1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 4, 2, 1)
        self.join2, self.join1, self.head = _block(64, 32), _block(32, 16), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        middle = self.second(self.down1(fine))
        middle = self.join2(torch.cat([middle, self.up2(self.bottom(self.down2(middle)))], 1))
        return self.head(self.join1(torch.cat([fine, self.up1(middle)], 1)))


class Variational(nn.Module):
    """16 x 16 numbers to a normal distribution over eight, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 256))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.decoder(code).view_as(x), mean, log_variance


def _evidence(model: nn.Module, batch: Batch) -> Tensor:
    """Minus the evidence's lower bound, a pixel."""
    x = batch["x"]
    made, mean, log_variance = model(x)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
    return (functional.mse_loss(made, x, reduction="sum") + divergence) / x.numel()


class Mixer(nn.Module):
    """Four by four patches; each layer mixes positions, then channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 64, 4, 4), nn.Linear(64, CLASSES)
        self.positions = nn.ModuleList(self._perceptron(16, 32) for _ in range(2))
        self.channels = nn.ModuleList(self._perceptron(64, 128) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(64) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        for n, (positions, channels) in enumerate(zip(self.positions, self.channels, strict=True)):
            x = x + positions(self.norms[2 * n](x).mT).mT
            x = x + channels(self.norms[2 * n + 1](x))
        return self.head(self.norms[-1](x).mean(1))

    @staticmethod
    def _perceptron(inputs: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, inputs))


def _convolutions(through: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(through(nn.Conv2d(3, 16, 3, 2, 1)), nn.ReLU(), through(nn.Conv2d(16, 32, 3, 2, 1)),
                         nn.ReLU(), nn.Flatten(), through(nn.Linear(512, 64)), nn.ReLU(),
                         nn.Linear(64, CLASSES))


class EqualLinear(nn.Linear):
    """Weights of unit variance, scaled when they are used, as in StyleGAN: the map is not the weight."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * (2 / self.in_features) ** 0.5, self.bias)


class EqualConv2d(nn.Conv2d):
    """The same of a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, 2, 1)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * (2 / self.weight[0].numel()) ** 0.5, self.bias, 2, 1)


def _equalized() -> nn.Module:
    return nn.Sequential(EqualConv2d(3, 16), nn.LeakyReLU(0.2), EqualConv2d(16, 32), nn.LeakyReLU(0.2),
                         nn.Flatten(), EqualLinear(512, 64), nn.LeakyReLU(0.2), EqualLinear(64, CLASSES))


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder transposed, used without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(256, 64), nn.Linear(64, 16)
        self.shift = nn.Parameter(torch.zeros(256))

    def forward(self, x: Tensor) -> Tensor:
        code = self.second(functional.relu(self.first(x.flatten(1))))
        return (functional.relu(code @ self.second.weight) @ self.first.weight + self.shift).view_as(x)


PLAIN_IMAGES = {
    "u-net": Family(UNet, denoised, _reconstruct),
    "vae": Family(Variational, real, _evidence),
    "mlp-mixer": Family(Mixer, small, _classify),
    "spectral-norm": Family(lambda: _convolutions(spectral_norm), small, _classify),
    "weight-norm": Family(lambda: _convolutions(weight_norm), small, _classify),
    "equalized": Family(_equalized, small, _classify),
    "tied-autoencoder": Family(TiedAutoencoder, real, lambda model,
                               batch: functional.mse_loss(model(batch["x"]), batch["x"])),
    "sequential-cnn": Family(lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, 2, 1, groups=4), nn.InstanceNorm2d(32, affine=True), nn.PReLU(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)), labelled, _classify),
}
