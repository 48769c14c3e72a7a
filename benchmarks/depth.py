"""Depth as a variable on images: train few long steps, halve them, and go on.

    OMP_NUM_THREADS=1 python -m benchmarks.depth --data FOLDER [--seeds 2] [--channels 16]

The paper's residual network with T = 5 on MNIST, EMSA as it comes, rates linear to 0, batches of 100. From 20
steps for the whole run, and from 5 steps, then 10, then 20. Printed: process time of the iterations, and the
train loss at the end over 10,000 images.
"""

from argparse import ArgumentParser
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pontryagin.optim import EMSA
from pontryagin.run.data import load_images
from pontryagin.run.models import ResidualStep, refined, residual_cnn

T, BATCH, RATE = 5.0, 100, 0.03
PLANS = {"20 steps": [(20, 500)], "5, 10, 20 steps": [(5, 470), (10, 60), (20, 50)]}


def trained(levels: list[tuple[int, int]], images: Tensor, labels: Tensor, channels: int,
            seed: int) -> tuple[nn.Sequential, float]:
    """levels: numbers of steps, each twice the last, and their iterations. The network and its seconds."""
    torch.manual_seed(seed)
    model = residual_cnn((1, 28, 28), 10, layers=levels[0][0], channels=channels, step_size=T / levels[0][0])
    draws, total = torch.Generator().manual_seed(seed), sum(iterations for _, iterations in levels)
    spent, number = 0.0, 0
    for steps, iterations in levels:
        while sum(isinstance(stage, ResidualStep) for stage in model) < steps:
            model = refined(model)
        optimizer = EMSA(model, lr=RATE)
        for _ in range(iterations):
            rows = torch.randint(len(images), (BATCH,), generator=draws)
            began = process_time()
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - number / total)
            optimizer.zero_grad()
            loss = cross_entropy(model(images[rows]), labels[rows])
            loss.backward()
            optimizer.step(loss=float(loss.detach()))
            spent, number = spent + process_time() - began, number + 1
        optimizer.detach()
    return model, spent


@torch.no_grad()
def train_loss(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Over the first 10,000."""
    parts = zip(images[:10000].split(1000), labels[:10000].split(1000), strict=True)
    return sum(float(cross_entropy(model(x), y)) for x, y in parts) / 10


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=None)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--channels", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = load_images("mnist", given.data)
    images = ((found.train - found.train.mean()) / found.train.std()).contiguous(
        memory_format=torch.channels_last)
    for seed in range(given.seeds):
        for name, levels in PLANS.items():
            model, seconds = trained(levels, images, found.train_labels, given.channels, seed)
            loss = train_loss(model, images, found.train_labels)
            print(f"seed {seed}  {name:16s} {seconds:7.1f} s   train loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
