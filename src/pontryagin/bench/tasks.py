"""The tasks of the benchmark: a model, its batches, its loss, what counts as reached."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pontryagin.run.data import Images, load_images, load_text
from pontryagin.run.errors import ExperimentError
from pontryagin.run.models import CharacterModel, autoencoder, mlp, residual_cnn
from pontryagin.run.objective import OBJECTIVES, Objective
from pontryagin.run.trainer import Batch


@dataclass(frozen=True)
class Task:
    """model(seed) and batches(seed) depend on the seed alone. score: on held-out data, larger is better.

    losses, scores: targets, in the order in which they are reached. iterations: horizon of a run.
    """

    name: str
    model: Callable[[int], nn.Module]
    batches: Callable[[int], Iterator[Batch]]
    objective: Objective
    score: Callable[[nn.Module], float]
    score_name: str
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    iterations: int


def make(name: str, dataset: str, folder: str | None) -> Task:
    """One of cnn, mlp, autoencoder (on a data set of images) and transformer (on text)."""
    if name == "transformer":
        return _transformer()
    if name not in {"cnn", "mlp", "autoencoder"}:
        raise ExperimentError(f"unknown task {name!r}: expected cnn, mlp, autoencoder or transformer")
    images = load_images(dataset, folder)
    if name == "autoencoder":
        return _autoencoder(images)
    shape = tuple(images.train.shape[1:])
    mean, deviation = images.train.mean(), images.train.std()
    images = images._replace(train=(images.train - mean) / deviation, test=(images.test - mean) / deviation)
    network = residual_cnn if name == "cnn" else mlp
    scores = (0.85, 0.87, 0.89) if dataset == "fashion-mnist" else (0.97, 0.98, 0.985)
    losses = {"cnn": (0.2, 0.1, 0.05),
              "mlp": (0.3, 0.2, 0.1)}[name] if dataset != "fashion-mnist" else (0.5, 0.4, 0.3)
    return Task(name, _seeded(lambda: network(shape, 10)),
                lambda seed: _batches(images.train, images.train_labels, 100, seed),
                OBJECTIVES["cross-entropy"], lambda model: _accuracy(model, images), "accuracy", losses,
                scores, 550 if name == "cnn" else 800)


def _autoencoder(images: Images) -> Task:
    shape = tuple(images.train.shape[1:])

    def score(model: nn.Module) -> float:
        test = images.test[:2000]
        return -(torch.sigmoid(model(test)) - test.flatten(1)).square().sum(1).mean().item()

    return Task("autoencoder", _seeded(lambda: autoencoder(shape)),
                lambda seed: _batches(images.train, images.train.flatten(1), 200, seed),
                OBJECTIVES["binary-cross-entropy"], score, "minus squared error",
                (150.0, 120.0, 100.0, 90.0) if len(images.train[0, 0]) == 28 else (28.0, 26.0, 24.0), (), 300)


def _transformer() -> Task:
    text, characters = load_text()
    length, cut = 64, len(text) * 9 // 10
    held_out = _windows(text[cut:], torch.arange(0, 64 * 1000, 1000), length)

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield _windows(text, torch.randint(cut - length - 1, (16,), generator=generator), length)

    def cost(output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, 1), target.flatten())

    return Task("transformer", _seeded(lambda: CharacterModel(characters, length=length)), batches,
                Objective("cross-entropy of characters", cost, False),
                lambda model: -cost(model(held_out[0]), held_out[1]).item(), "minus validation loss",
                (2.6, 2.4, 2.2, 2.0), (), 400)


def _windows(text: Tensor, starts: Tensor, length: int) -> Batch:
    window = text[starts[:, None] + torch.arange(length + 1)]
    return window[:, :-1], window[:, 1:]


def _seeded(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    def model(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build()
    return model


def _batches(inputs: Tensor, labels: Tensor, size: int, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.randperm(len(inputs), generator=generator).split(size):
            if len(rows) == size:
                yield inputs[rows], labels[rows]


def _accuracy(model: nn.Module, images: Images) -> float:
    """On every second test image: the first half of MNIST's is harder than the other."""
    step = 2 if len(images.test) > 5000 else 1
    test, labels = images.test[::step], images.test_labels[::step]
    parts = zip(test.split(500), labels.split(500), strict=True)
    return sum((model(x).argmax(1) == y).sum().item() for x, y in parts) / len(test)
