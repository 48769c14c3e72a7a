"""Sequence models in plain torch: recurrent, convolutional, a transformer, one that recomputes its layers,
one with adapters."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from benchmarks.zoo.family import Batch, Family
from benchmarks.zoo.text import START, VOCABULARY, continued, tokens

_WIDTH = 64


def _next_token(model: nn.Module, batch: Batch) -> Tensor:
    text = batch["input_ids"]
    return functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(VOCABULARY, _WIDTH), nn.Linear(_WIDTH, VOCABULARY)
        self.recurrent = kind(_WIDTH, _WIDTH, 2, batch_first=True)

    def forward(self, text: Tensor) -> Tensor:
        return self.head(self.recurrent(self.table(text))[0])


class Dilated(nn.Module):
    """Causal convolutions over 1, 2, 4, 8 steps back."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(VOCABULARY, _WIDTH), nn.Conv1d(_WIDTH, VOCABULARY, 1)
        self.layers = nn.ModuleList(nn.Conv1d(_WIDTH, 2 * _WIDTH, 2, dilation=2**n) for n in range(4))

    def forward(self, text: Tensor) -> Tensor:
        x = self.table(text).mT
        for layer in self.layers:
            x = x + functional.glu(layer(functional.pad(x, (layer.dilation[0], 0))), 1)
        return self.head(x).mT


class Decoder(nn.Module):
    """Two causal layers, which checkpointed=True computes once more in the backward pass; the head's weight
    is the table."""

    def __init__(self, checkpointed: bool) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.table, self.head = nn.Embedding(VOCABULARY, _WIDTH), nn.Linear(_WIDTH, VOCABULARY)
        nn.init.normal_(self.table.weight, std=0.02)
        self.head.weight = self.table.weight
        self.places = nn.Parameter(0.02 * torch.randn(32, _WIDTH))
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(_WIDTH, 4, 128, 0.0, batch_first=True,
                                                               norm_first=True)
                                    for _ in range(2))

    def forward(self, text: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        x = self.table(text) + self.places[:text.shape[1]]
        for layer in self.layers:
            x = checkpoint(layer, x, mask, use_reentrant=False) if self.checkpointed else layer(x, mask)
        return self.head(x)


class LowRank(nn.Linear):
    """A frozen linear map beside a trained one of rank 4."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(4, inputs)
                                          / inputs**0.5), nn.Parameter(torch.zeros(outputs, 4))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


def _adapted() -> nn.Module:
    """Decoder with frozen feed-forward layers, adapted."""
    model = Decoder(checkpointed=False)
    for layer in model.layers:
        layer.linear1, layer.linear2 = LowRank(_WIDTH, 128), LowRank(128, _WIDTH)
    return model


class Reverser(nn.Module):
    """nn.Transformer as its documentation uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(VOCABULARY, _WIDTH), nn.Linear(_WIDTH, VOCABULARY)
        self.places = nn.Embedding(32, _WIDTH)
        self.transformer = nn.Transformer(_WIDTH, 4, 2, 2, 128, 0.1, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.transformer(self._placed(source), self._placed(target), tgt_mask=mask))

    def _placed(self, text: Tensor) -> Tensor:
        return self.table(text) + self.places(torch.arange(text.shape[1]))


def _reversed(generator: Generator) -> Batch:
    text = tokens(generator, 8, 16)
    start = torch.full((8, 1), START)
    return {"source": text.flip(1), "target": torch.cat([start, text], 1)}


def _translate(model: nn.Module, batch: Batch) -> Tensor:
    target = batch["target"]
    return functional.cross_entropy(model(batch["source"], target[:, :-1]).flatten(0, 1),
                                    target[:, 1:].flatten())


PLAIN_TEXT = {
    "nn.Transformer": Family(Reverser, _reversed, _translate),
    "lstm": Family(lambda: Recurrent(nn.LSTM), continued, _next_token),
    "gru": Family(lambda: Recurrent(nn.GRU), continued, _next_token),
    "dilated": Family(Dilated, continued, _next_token),
    "decoder": Family(lambda: Decoder(False), continued, _next_token),
    "checkpointed": Family(lambda: Decoder(True), continued, _next_token),
    "low-rank": Family(_adapted, continued, _next_token),
}
