"""Convolutional networks and transformers that tell digits apart."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pontryagin.bench.panel.network import Network, Work
from pontryagin.bench.panel.networks.digits import digits
from pontryagin.run.objective import OBJECTIVES


class Block(nn.Module):
    """Two convolutions, normalized, beside the identity."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), norm(channels),
                                    nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
                                    norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.branch(x))


def resnet(norm: Callable[[int], nn.Module], depth: int) -> nn.Sequential:
    """depth blocks of 16 channels on 14 x 14 places."""
    return nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), *(Block(16, norm) for _ in range(depth)), nn.AvgPool2d(2),
                         nn.Flatten(), nn.Linear(16 * 49, 10))


def vgg() -> nn.Sequential:
    """Six convolutions and a linear layer, without normalization."""
    layers: list[nn.Module] = [nn.MaxPool2d(2)]
    for before, after, pool in ((1, 16, 0), (16, 16, 1), (16, 32, 0), (32, 32, 1), (32, 64, 0), (64, 64, 0)):
        layers += [nn.Conv2d(before, after, 3, 1, 1), nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class VisionTransformer(nn.Module):
    """Patches of 7 x 7, three of torch's encoder layers of width 64, mean over places."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 64, 7, 7)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=norm_first)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).mT + self.places).mean(1))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7, LayerNorm over channels, two linear layers, a learned scale (Liu et al. 2022)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.up = nn.LayerNorm(channels), nn.Linear(channels, 4 * channels)
        self.down, self.scale = nn.Linear(4 * channels, channels), nn.Parameter(0.1 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(functional.gelu(self.up(branch)))).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Two blocks of 32 channels on 7 x 7 places, two of 64 on 3 x 3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 4, 4)
        self.early = nn.Sequential(ConvNeXtBlock(32), ConvNeXtBlock(32))
        self.narrow = nn.Conv2d(32, 64, 2, 2)
        self.late = nn.Sequential(ConvNeXtBlock(64), ConvNeXtBlock(64))
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.late(self.narrow(self.early(self.stem(x))))
        return self.head(self.norm(x.mean((2, 3))))


def _classify(build: Callable[[], nn.Module]) -> Callable[[str | None], Work]:
    return lambda folder: Work(build, digits(folder).labelled, 100, OBJECTIVES["cross-entropy"])


IMAGES = (
    Network("resnet-batch-norm", "ResNet", _classify(lambda: resnet(nn.BatchNorm2d, 3))),
    Network("resnet-group-norm", "ResNet", _classify(
        lambda: resnet(lambda channels: nn.GroupNorm(4, channels), 3))),
    Network("resnet-no-norm", "ResNet", _classify(lambda: resnet(lambda _: nn.Identity(), 6))),
    Network("vgg", "CNN", _classify(vgg)),
    Network("convnext", "ConvNeXt", _classify(ConvNeXt)),
    Network("vit", "ViT", _classify(lambda: VisionTransformer(True))),
    Network("vit-norm-last", "ViT", _classify(lambda: VisionTransformer(False))),
)
