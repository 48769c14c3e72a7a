"""EMSA as it comes, on twenty small networks that nothing was tuned on, beside AdamW at torch's rate and at
three times it.

    OMP_NUM_THREADS=1 python -m benchmarks.defaults --data FOLDER [--seeds 3] [--iterations 300] [--only "10
    layers" linear]

Per network: the loss on held-out samples after the last iteration, constant rates, median over seeds [range];
ms of processor time an iteration, median over seeds. Images are MNIST, text is the bench's, regression is a
random network with noise of a tenth of its targets' scale (losses in units of that scale squared). EMSA's
loss is that of its averages.
"""

import warnings
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from benchmarks.measure import METHODS, known, middle, train
from benchmarks.zoo.family import Batch, Build, Family
from pontryagin.bench.tasks import character_loss
from pontryagin.run.data import load_images, load_text
from pontryagin.run.errors import ExperimentError


@dataclass(frozen=True)
class Data:
    """train, held_out: inputs and targets. unit: of the losses that are reported."""

    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    cost: Callable[[Tensor, Tensor], Tensor]
    unit: float = 1.0

    def family(self, build: Build, size: int) -> Family:
        """A network on batches of so many of these samples."""

        def draw(generator: Generator) -> Batch:
            rows = torch.randint(len(self.train[0]), (size,), generator=generator)
            return {"x": self.train[0][rows], "y": self.train[1][rows]}

        @torch.no_grad()
        def held_out(family: Family, model: nn.Module) -> float:
            return self.cost(model(self.held_out[0]), self.held_out[1]).item() / self.unit

        return Family(build, draw, lambda model, batch: self.cost(model(batch["x"]), batch["y"]),
                      held_out=held_out)


def images(folder: str | None) -> Data:
    found = load_images("mnist", folder)
    mean, deviation = found.train.mean(), found.train.std()
    return Data(((found.train - mean) / deviation, found.train_labels),
                ((found.test[:2000] - mean) / deviation, found.test_labels[:2000]), functional.cross_entropy)


def regression(scale: float) -> Data:
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x = random(8000, 20) @ (random(20, 20) / 20**0.5)
    y = (x @ random(20, 64) * 1.5 / 20**0.5 + random(64)).tanh() @ random(64, 1) * 1.5 / 8
    y = scale * (y + 0.1 * random(8000, 1))
    return Data((x[:7000], y[:7000]), (x[7000:], y[7000:]), functional.mse_loss, scale**2)


def text(length: int = 64) -> tuple[Data, int]:
    characters, size = load_text()
    windows = characters.unfold(0, length + 1, 16)
    cut = len(windows) * 9 // 10

    train, held_out = windows[:cut], windows[cut:][::len(windows) // 500]
    return Data((train[:, :-1], train[:, 1:]), (held_out[:, :-1], held_out[:, 1:]), character_loss), size


def plain(inputs: int, outputs: int, depth: int, width: int = 64, activation: Build = nn.ReLU,
          norm: Callable[[int], nn.Module] | None = None) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), *([norm(width)] if norm else []), activation()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Block(nn.Module):
    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), norm(channels),
                                    nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
                                    norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.branch(x))


def residual(norm: Callable[[int], nn.Module], depth: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), *(Block(16, norm) for _ in range(depth)), nn.AvgPool2d(2),
                         nn.Flatten(), nn.Linear(16 * 49, 10))


def vgg() -> nn.Sequential:
    layers: list[nn.Module] = [nn.MaxPool2d(2)]
    for before, after, pool in ((1, 16, 0), (16, 16, 1), (16, 32, 0), (32, 32, 1), (32, 64, 0), (64, 64, 0)):
        layers += [nn.Conv2d(before, after, 3, 1, 1), nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class VisionTransformer(nn.Module):
    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 64, 7, 7)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=norm_first)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).mT + self.places).mean(1))


class Recurrent(nn.Module):
    def __init__(self, characters: int) -> None:
        super().__init__()
        self.table, self.recurrent = nn.Embedding(characters, 64), nn.LSTM(64, 128, batch_first=True)
        self.head = nn.Linear(128, characters)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(self.table(x))[0])


def networks(folder: str | None) -> dict[str, tuple[Build, Data, int]]:
    """Name: model, data, batch size."""
    mnist, (words, characters) = images(folder), text()
    units, thousands, thousandths = regression(1.0), regression(1000.0), regression(1e-3)

    def of_images(depth: int, **options: object) -> Build:
        return lambda: plain(784, 10, depth, **options)  # type: ignore[arg-type]

    def of_vectors(depth: int, **options: object) -> Build:
        return lambda: plain(20, 1, depth, **options)  # type: ignore[arg-type]

    return {
        "linear": (of_images(0), mnist, 100),
        "2 layers": (of_images(2), mnist, 100),
        "2 layers, batches of 8": (of_images(2), mnist, 8),
        "2 layers, batches of 2": (of_images(2), mnist, 2),
        "2 layers of 1024": (of_images(2, width=1024), mnist, 100),
        "3 layers, sigmoid": (of_images(3, activation=nn.Sigmoid), mnist, 100),
        "10 layers": (of_images(10), mnist, 100),
        "10 layers, tanh": (of_images(10, activation=nn.Tanh), mnist, 100),
        "20 layers, GELU, layer norm": (of_images(20, activation=nn.GELU, norm=nn.LayerNorm), mnist, 100),
        "regression": (of_vectors(2), units, 64),
        "regression, targets x 1000": (of_vectors(2), thousands, 64),
        "regression, targets / 1000": (of_vectors(2), thousandths, 64),
        "regression, 6 layers, SiLU": (of_vectors(6, activation=nn.SiLU), units, 64),
        "residual, batch norm": (lambda: residual(nn.BatchNorm2d, 3), mnist, 100),
        "residual, group norm": (lambda: residual(lambda channels: nn.GroupNorm(4, channels), 3), mnist, 100),
        "residual, no norm": (lambda: residual(lambda _: nn.Identity(), 6), mnist, 100),
        "VGG, no norm": (vgg, mnist, 100),
        "vision transformer": (lambda: VisionTransformer(True), mnist, 100),
        "the same, norm last": (lambda: VisionTransformer(False), mnist, 100),
        "LSTM on text": (lambda: Recurrent(characters), words, 16),
    }


def main() -> None:
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", help="folder of MNIST's IDX files (or PONTRYAGIN_DATA)")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--iterations", type=int, default=300)
    options.add_argument("--only", nargs="+", help="names of networks")
    given = options.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "EMSA trains")
    try:
        found = networks(given.data)
    except ExperimentError as error:
        options.error(str(error))
    print("| | " + " | ".join(METHODS) + " | ms |\n" + "|---" * (len(METHODS) + 2) + "|")
    for name in known(options, "network", given.only or [], found):
        cells, milliseconds = [], []
        build, data, size = found[name]
        for method in METHODS:
            runs = [train(data.family(build, size), method, seed, given.iterations)
                    for seed in range(given.seeds)]
            losses = [run.held_out for run in runs]
            cells.append(next((run.failure for run in runs if run.failure), "")
                         or f"{middle(losses, '.3g')} [{min(losses):.3g}, {max(losses):.3g}]")
            milliseconds.append(middle([run.milliseconds for run in runs], ".2g"))
        print(f"| {name} | " + " | ".join(cells) + f" | {', '.join(milliseconds)} |", flush=True)


if __name__ == "__main__":
    main()
