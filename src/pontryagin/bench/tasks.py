"""The tasks of the benchmark: a model, its batches, its loss, what counts as reached."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pontryagin.run.data import load_text
from pontryagin.run.errors import ExperimentError
from pontryagin.run.models import CharacterModel
from pontryagin.run.objective import Objective
from pontryagin.run.parts import task_from
from pontryagin.run.samples import Samples
from pontryagin.run.trainer import Batch

MODELS = {"cnn": "residual-cnn", "mlp": "mlp", "autoencoder": "autoencoder"}


@dataclass(frozen=True)
class Task:
    """build: the network at its start, from torch's global generator; batches: by seed, each of batch_size.
    score: on held-out data, larger is better. losses, scores: targets, in the order in which they are
    reached.
    iterations: horizon of a run."""

    name: str
    build: Callable[[], nn.Module]
    batches: Callable[[int], Iterator[Batch]]
    batch_size: int
    objective: Objective
    score: Callable[[nn.Module], float]
    score_name: str
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    iterations: int


def make(name: str, dataset: str, folder: Path | None) -> Task:
    """One of cnn, mlp, autoencoder (on a data set of images) and transformer (on text)."""
    if name == "transformer":
        return _transformer()
    if name not in MODELS:
        raise ExperimentError(f"unknown task {name!r}: expected cnn, mlp, autoencoder or transformer")
    encodes = name == "autoencoder"
    found = task_from(MODELS[name], dataset, "binary-cross-entropy" if encodes else "cross-entropy", None,
                      {"folder": folder, "reconstruct": encodes})
    size, iterations = {"cnn": (100, 550), "mlp": (100, 800), "autoencoder": (200, 300)}[name]
    losses, scores = _targets(name, dataset)

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            for rows in torch.randperm(len(found.train), generator=generator).split(size):
                if len(rows) == size:
                    yield found.train.rows(rows)

    return Task(name, found.build, batches, size, found.objective,
                lambda model: (_closeness if encodes else _accuracy)(model, found.test),
                "minus squared error" if encodes else "accuracy", losses, scores, iterations)


def _targets(name: str, dataset: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Losses and scores."""
    if name == "autoencoder":  # of 8 x 8 and of 28 x 28 pixels
        return (28.0, 26.0, 24.0) if dataset == "digits" else (150.0, 120.0, 100.0, 90.0), ()
    if dataset == "fashion-mnist":
        return (0.5, 0.4, 0.3), (0.85, 0.87, 0.89)
    return (0.2, 0.1, 0.05) if name == "cnn" else (0.3, 0.2, 0.1), (0.97, 0.98, 0.985)


def _accuracy(model: nn.Module, test: Samples) -> float:
    """On every second test image: the first half of MNIST's is harder than the other."""
    rows = torch.arange(0, len(test), 2 if len(test) > 5000 else 1)
    parts = map(test.rows, rows.split(500))
    return sum((model(x).argmax(1) == y).sum().item() for x, y in parts) / len(rows)


def _closeness(model: nn.Module, test: Samples) -> float:
    """Minus the squared error of an image, mean over the first 2000."""
    images, pixels = test.rows(torch.arange(min(2000, len(test))))
    return -(torch.sigmoid(model(images)) - pixels).square().sum(1).mean().item()


def _transformer() -> Task:
    text, characters = load_text()
    length, cut = 64, len(text) * 9 // 10
    held_out = windows(text[cut:], torch.arange(0, 64 * 1000, 1000), length)

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield windows(text, torch.randint(cut - length - 1, (16,), generator=generator), length)

    return Task("transformer", lambda: CharacterModel(characters, length=length), batches, 16,
                Objective("cross-entropy of characters", character_loss, False),
                lambda model: -character_loss(model(held_out[0]), held_out[1]).item(),
                "minus validation loss", (2.6, 2.4, 2.2, 2.0), (), 400)


def character_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of the next character. output: (sample, place, character), target: (sample,
    place)."""
    return functional.cross_entropy(output.flatten(0, 1), target.flatten())


def windows(text: Tensor, starts: Tensor, length: int) -> Batch:
    """The characters from each start on, (start, length), and each one's next."""
    window = text[starts[:, None] + torch.arange(length + 1)]
    return window[:, :-1], window[:, 1:]
