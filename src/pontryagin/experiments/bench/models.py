"""The networks of the benchmark."""

from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualStep(nn.Module):
    """x + 0.5 tanh(conv3x3 x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * torch.tanh(self.conv(x))


def residual_cnn(size: int, channels: int = 32, steps: int = 7) -> nn.Module:
    """The paper's network ([LCTE] section 5): two projections (conv, pool, tanh), residual steps, one linear layer.

    Pooling before tanh is the same function as after it. Weights N(0, 1 / fan_in), biases 0, channels last.
    """
    model = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.MaxPool2d(2), nn.Tanh(),
        nn.Conv2d(channels, channels, 3, padding=1), nn.MaxPool2d(2), nn.Tanh(),
        *(ResidualStep(channels) for _ in range(steps)),
        nn.Flatten(), nn.Linear(channels * (size // 4) ** 2, 10))
    _normal(model, 1.0)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def mlp(inputs: int, width: int = 128, depth: int = 10) -> nn.Module:
    """A plain deep network: `depth` hidden layers with ReLU, He initialization."""
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(depth):
        layers += [nn.Linear(inputs if number == 0 else width, width), nn.ReLU()]
    return _normal(nn.Sequential(*layers, nn.Linear(width, 10)), 2.0)


def autoencoder(inputs: int, widths: tuple[int, ...]) -> nn.Module:
    """inputs - widths - ... and back, tanh, linear code, logits out. Hinton and Salakhutdinov 2006 in shape."""
    sizes = (inputs, *widths, *reversed(widths[:-1]), inputs)
    layers: list[nn.Module] = [nn.Flatten()]
    for number, (before, after) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(before, after))
        if number not in (len(widths) - 1, len(sizes) - 2):
            layers.append(nn.Tanh())
    return _normal(nn.Sequential(*layers), 1.0)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre-normalized attention and two-layer network."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.attention, self.second = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class CharacterModel(nn.Module):
    """A small GPT: predicts the next character at each position."""

    def __init__(self, characters: int, width: int = 128, blocks: int = 2, heads: int = 4, length: int = 64) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(characters, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, characters)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02 / (sqrt(2 * blocks) if name.endswith(("out", "down")) else 1))
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        self.register_buffer("positions", torch.arange(length))

    def forward(self, indices: Tensor) -> Tensor:
        places = self.places(self.positions[:indices.shape[1]])  # type: ignore[index]
        return self.head(self.last(self.blocks(self.characters(indices) + places)))


def _normal(model: nn.Module, gain: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(module.weight, std=sqrt(gain / module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
