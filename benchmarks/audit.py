"""The audit beside the truth: its rankings, its gap along a training run, and its cost on a network with 25
million weights.

    OMP_NUM_THREADS=1 python -m benchmarks.audit ranking --dataset mnist --data FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.audit gap
    python -m benchmarks.audit large

ranking: networks trained by Adam and torch alone, on several seeds; Spearman's correlation over stages of
predicted with true costs of each set, on training and on test samples, beside that of |dW| / |W|. gap: along
Adam on digits, and on the way of a linear map to its least-squares solution. large, on all cores: seconds and
growth of the peak resident set.
"""

import argparse
import os
import sys
from statistics import median
from time import perf_counter, process_time

import torch
from torch import Tensor, nn

from pontryagin.audit import Audit, audit
from pontryagin.audit.result import spearman
from pontryagin.bench.memory import resident
from pontryagin.run.data import load_images
from pontryagin.run.models import mlp, residual_cnn

SETS = ("int8", "int4", "ternary-rows", "binary-rows", "2:4", "50%")


def main() -> None:
    torch.set_num_threads(1)
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=["ranking", "gap", "large"])
    options.add_argument("--dataset", default="digits")
    options.add_argument("--data", default=None)
    options.add_argument("--networks", default="mlp,cnn")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--samples", type=int, default=1024)
    options.add_argument("--epochs", type=int, default=None, help="of Adam; by default 30 on digits, else 2")
    options.add_argument("--first", type=int, default=0, help="the first seed")
    chosen = options.parse_args()
    if chosen.what == "ranking":
        ranking(chosen)
    elif chosen.what == "gap":
        gap()
    else:
        large()


def network(name: str, pixels: int, seed: int) -> nn.Module:
    """Ten stages each: the paper's residual CNN with 16 channels, and a plain ReLU network 64 wide."""
    torch.manual_seed(seed)
    return residual_cnn((1, pixels, pixels), channels=16) if name == "cnn" else mlp((1, pixels, pixels), 10,
                                                                                    width=64, depth=9)


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, seed: int) -> None:
    """Plain Adam, learning rate 1e-3, batches of 100, torch only."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=order).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()


def batches(images: Tensor, labels: Tensor, samples: int, size: int = 64) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images[:samples].split(size), labels[:samples].split(size), strict=True))


def ranking(chosen: argparse.Namespace) -> None:
    data = load_images(chosen.dataset, chosen.data)
    epochs = chosen.epochs or (30 if chosen.dataset == "digits" else 2)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for name in chosen.networks.split(","):
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            model = network(name, data.train.shape[-1], seed)
            train(model, data.train, data.train_labels, epochs, seed)
            for split, images, labels in (("train", data.train, data.train_labels),
                                          ("test", data.test, data.test_labels)):
                result = audit(model, "cross-entropy", batches(images, labels, chosen.samples), sets=SETS)
                print(f"{chosen.dataset} {name} seed {seed} {split}: loss {result.loss:.4g}, "
                      + ", ".join(f"{each} {result.agreement(each):.2f}" for each in SETS), flush=True)
                for each in SETS:
                    found.setdefault((name, each),
                                     []).append((result.agreement(each) or 0.0, by_size(result, each)))
    for (name, each), pairs in found.items():
        agreed, sizes = zip(*pairs, strict=True)
        print(f"{chosen.dataset} {name:4s} {each:8s} median {median(agreed):.2f}, least {min(agreed):.2f}; "
              f"by |dW| / |W| median {median(sizes):.2f}, least {min(sizes):.2f}")


def by_size(result: Audit, name: str) -> float:
    """What ranking by |dW| / |W| would give."""
    pairs = [(each.change, each.true or 0.0) for _, each in result.ranking(name)]
    return spearman(*zip(*pairs, strict=True))


def gap() -> None:
    data = load_images("digits")
    model = network("mlp", 8, 0)
    print("Adam on digits: epoch, loss, gap +- error, gap on these samples")
    for epoch in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256):
        train(model, data.train, data.train_labels, epoch if epoch < 2 else epoch // 2, epoch)
        result = audit(model, "cross-entropy", batches(data.train, data.train_labels, 1500, 50), sets=(),
                       measure=False)
        print(f"{epoch:4d}  {result.loss:.4f}  {result.gain:.4g} +- {result.gain_error:.2g}  "
              f"{sum(stage.gain_here or 0.0 for stage in result.stages):.4g}", flush=True)
    print("a linear map by least squares: distance from the solution, loss, gap +- error, gap on these "
          "samples")
    torch.manual_seed(0)
    x, noise = torch.randn(4096, 20), torch.randn(4096, 3)
    layer = nn.Linear(20, 3)
    y = x @ torch.randn(20, 3) + noise
    start = layer.weight.detach().clone()
    solution = torch.linalg.lstsq(torch.cat([x, x.new_ones(len(x), 1)], 1), y).solution
    layer.bias.data.copy_(solution[-1])
    for distance in (1.0, 0.3, 0.1, 0.03, 0.0):
        layer.weight.data.copy_(torch.lerp(solution[:-1].T, start, distance))
        result = audit(layer, "squared-error", batches(x, y, 4096, 128), sets=(), measure=False)
        print(f"{distance:4.2f}  {result.loss:.4f}  {result.gain:.4g} +- {result.gain_error:.2g}  "
              f"{result.stages[0].gain_here:.4g}")


class Bottleneck(nn.Module):
    """ResNet's: 1x1, 3x3, 1x1 convolutions with batch normalization beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.main = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        same = inputs == outputs and stride == 1
        self.short = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride,
                                                                        bias=False),
                                                              nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.short(x))


def resnet50(classes: int = 1000) -> nn.Module:
    """25.6 million parameters in 54 matrices and 53 normalizations (He et al. 2016), weights as torch
    initializes them."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64),
                               nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def large() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    models = {"resnet50 64x64": (resnet50(), torch.randn(32, 3, 64, 64), 1000),
              "mlp 2048 wide": (mlp((3, 32, 32), 10, width=2048, depth=6), torch.randn(256, 3, 32, 32), 10)}
    for name, (model, x, classes) in models.items():
        y = torch.randint(0, classes, (len(x),))
        count = sum(parameter.numel() for parameter in model.parameters())
        before, began, worked = resident(peak=True), perf_counter(), process_time()
        titles: dict[str, float] = {}

        def note(title: str, done: int, length: int, titles: dict[str, float] = titles,
                 began: float = began) -> None:
            titles[title] = perf_counter() - began
            print(f"\r{title} {done}/{length} {titles[title]:.0f} s   ", end="", file=sys.stderr)

        result = audit(model, "cross-entropy", batches(x, y, len(x), len(x) // 8), progress=note)
        phases = ", ".join(f"{title} until {second:.0f} s" for title, second in titles.items())
        print(f"\n{name}: {count / 1e6:.1f} million parameters, {len(result.stages)} stages, "
              f"{result.samples} samples: {perf_counter() - began:.0f} s, {process_time() - worked:.0f} s of "
              f"the processor ({phases}); peak resident set {before / 2**20:.0f} MB before, "
              f"{resident(peak=True) / 2**20:.0f} MB after; "
              f"weights {count * 4 / 2**20:.0f} MB; {torch.get_num_threads()} thread", flush=True)


if __name__ == "__main__":
    main()
