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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn import functional

from pontryagin.optim import EMSA
from pontryagin.run.data import load_images, load_text
from pontryagin.run.errors import ExperimentError

METHODS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "EMSA": EMSA,
    "AdamW 1e-3": lambda model: torch.optim.AdamW(model.parameters(), 1e-3),
    "AdamW 3e-3": lambda model: torch.optim.AdamW(model.parameters(), 3e-3),
}
Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Data:
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    cost: Callable[[Tensor, Tensor], Tensor]
    unit: float = 1.0

    def batches(self, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            rows = torch.randint(len(self.train[0]), (size,), generator=generator)
            yield self.train[0][rows], self.train[1][rows]


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

    def cost(output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, 1), target.flatten())

    train, held_out = windows[:cut], windows[cut:][::len(windows) // 500]
    return Data((train[:, :-1], train[:, 1:]), (held_out[:, :-1], held_out[:, 1:]), cost), size


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


def train(build: Build, data: Data, size: int, method: str, seed: int, iterations: int) -> tuple[float,
                                                                                                 float]:
    """The held-out loss, and ms an iteration."""
    torch.manual_seed(seed)
    model, batches = build(), data.batches(size, seed)
    optimizer = METHODS[method](model)
    began = process_time()
    for _ in range(iterations):
        x, y = next(batches)
        optimizer.zero_grad()
        data.cost(model(x), y).backward()
        optimizer.step()
    seconds = process_time() - began
    if isinstance(optimizer, EMSA):
        optimizer.eval()
    model.eval()
    with torch.no_grad():
        return data.cost(model(data.held_out[0]),
                         data.held_out[1]).item() / data.unit, 1e3 * seconds / iterations


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
    names = given.only or list(found)
    if unknown := [name for name in names if name not in found]:
        options.error(f"unknown network {unknown[0]!r}: expected one or more of "
                      f"{', '.join(map(repr, found))}")
    print("| | " + " | ".join(METHODS) + " | ms |\n" + "|---" * (len(METHODS) + 2) + "|")
    for name in names:
        cells, milliseconds = [], []
        for method in METHODS:
            runs = [train(*found[name], method, seed, given.iterations) for seed in range(given.seeds)]
            losses = [loss for loss, _ in runs]
            cells.append(f"{median(losses):.3g} [{min(losses):.3g}, {max(losses):.3g}]")
            milliseconds.append(f"{median(time for _, time in runs):.2g}")
        print(f"| {name} | " + " | ".join(cells) + f" | {', '.join(milliseconds)} |", flush=True)


if __name__ == "__main__":
    main()
