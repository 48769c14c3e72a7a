"""Models that predict the next character of Python's standard library."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from pontryagin.bench.panel.network import Network, Work
from pontryagin.bench.tasks import character_loss, windows
from pontryagin.run.data import load_text
from pontryagin.run.models.character_model import Block
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import Batch

LENGTH = 64
characters = cache(load_text)


class Recurrent(nn.Module):
    """A table of 64 numbers, one recurrent layer of 128, a linear layer."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], symbols: int) -> None:
        super().__init__()
        self.table, self.recurrent = nn.Embedding(symbols, 64), kind(64, 128, batch_first=True)
        self.head = nn.Linear(128, symbols)

    def forward(self, text: Tensor) -> Tensor:
        return self.head(self.recurrent(self.table(text))[0])


class GPT2(nn.Module):
    """Learned places, LayerNorm before attention and GELU layers, the head the table itself, weights N(0,
    0.02^2)."""

    def __init__(self, symbols: int, width: int = 96, blocks: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(symbols, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, symbols, bias=False)
        self.head.weight = self.table.weight
        _small(self)

    def forward(self, text: Tensor) -> Tensor:
        places = self.places(torch.arange(text.shape[1]))
        return self.head(self.last(self.blocks(self.table(text) + places)))


class Turned(nn.Module):
    """Causal attention with rotary places (Su et al. 2021), no biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, size = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        angles = torch.arange(LENGTH)[:, None] * 10000.0 ** (-torch.arange(0, size, 2) / size)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        query, key, value = (part(x).view(batch, length, self.heads, -1).transpose(1, 2)
                             for part in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(self._turn(query), self._turn(key), value,
                                                        is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    def _turn(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        cosine, sine = self.cosine[:x.shape[2]], self.sine[:x.shape[2]]  # type: ignore[index]
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class LlamaBlock(nn.Module):
    """RMSNorm before attention and before a gated layer (SwiGLU)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.first, self.attention, self.second = nn.RMSNorm(width), Turned(width, heads), nn.RMSNorm(width)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        seen = self.second(x)
        return x + self.down(functional.silu(self.gate(seen)) * self.up(seen))


class Llama(nn.Module):
    """Three such blocks, a head of its own, weights N(0, 0.02^2)."""

    def __init__(self, symbols: int, width: int = 96, blocks: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.table = nn.Embedding(symbols, width)
        self.blocks = nn.Sequential(*(LlamaBlock(width, heads, 256) for _ in range(blocks)))
        self.last, self.head = nn.RMSNorm(width), nn.Linear(width, symbols, bias=False)
        _small(self)

    def forward(self, text: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.table(text))))


def _small(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def on_text(build: Callable[[int], nn.Module]) -> Work:
    """build: from the number of symbols. Batches of sixteen pieces of LENGTH characters, from anywhere."""
    text, symbols = characters()

    def draw(generator: Generator, number: int) -> Batch:
        return windows(text, torch.randint(len(text) - LENGTH - 1, (number,), generator=generator), LENGTH)

    return Work(lambda: build(symbols), draw, 16, Objective("cross-entropy of characters", character_loss,
                                                            False), 64)


TEXT = (
    Network("gru", "GRU", lambda _: on_text(lambda symbols: Recurrent(nn.GRU, symbols))),
    Network("lstm", "LSTM", lambda _: on_text(lambda symbols: Recurrent(nn.LSTM, symbols))),
    Network("gpt2", "GPT-2", lambda _: on_text(GPT2)),
    Network("llama", "Llama", lambda _: on_text(Llama)),
)
