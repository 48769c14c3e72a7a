"""A small GPT."""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional


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
        self.first, self.attention, self.second = nn.LayerNorm(width), Attention(width,
                                                                                 heads), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class CharacterModel(nn.Module):
    """A small GPT: predicts the next character at each position."""

    def __init__(self, characters: int, width: int = 128, blocks: int = 2, heads: int = 4,
                 length: int = 64) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(characters, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, characters)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight,
                                std=0.02 / (sqrt(2 * blocks) if name.endswith(("out", "down")) else 1))
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        self.register_buffer("positions", torch.arange(length))

    def forward(self, indices: Tensor) -> Tensor:
        places = self.places(self.positions[:indices.shape[1]])  # type: ignore[index]
        return self.head(self.last(self.blocks(self.characters(indices) + places)))
