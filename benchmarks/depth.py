"""Depth as a variable on images: train few long steps, halve them, and go on.

    OMP_NUM_THREADS=1 python -m benchmarks.depth [--data mnist] [--folder FOLDER] [--seeds 2] [--first 0]

The paper's residual network with T = 5 and 20 steps, the methods as they come, rates linear to 0, batches of
100: `emsa` with all steps for 500 iterations, and `emsa-multilevel` with 5 steps, then 10, then 20 for 550,
which are to take six tenths of the time. Printed: process time of the iterations, and the train loss at the
end over 10,000 images.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pontryagin.run.data import load_images
from pontryagin.run.methods import METHODS
from pontryagin.run.models import residual_cnn
from pontryagin.run.objective import OBJECTIVES

T, STEPS, BATCH = 5.0, 20, 100
ITERATIONS = {"emsa": 500, "emsa-multilevel": 550}


def trained(method: str, build: Callable[[], nn.Module], images: Tensor, labels: Tensor, seed: int
            ) -> tuple[float, float]:
    """Seconds, and the train loss at the end."""
    torch.manual_seed(seed)
    trainer = METHODS[method].trainer(build(), OBJECTIVES["cross-entropy"])
    draws, spent = torch.Generator().manual_seed(seed), 0.0
    for number in range(ITERATIONS[method]):
        rows = torch.randint(len(images), (BATCH,), generator=draws)
        batch = images[rows], labels[rows]
        began = process_time()
        trainer.set_factor(1 - number / ITERATIONS[method])
        trainer.step(batch)
        spent += process_time() - began
    with trainer.evaluated() as model, torch.no_grad():
        parts = zip(images[:10000].split(1000), labels[:10000].split(1000), strict=True)
        return spent, sum(float(cross_entropy(model(x), y)) for x, y in parts) / 10


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--channels", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = load_images(given.data, given.folder)
    images = ((found.train - found.train.mean()) / found.train.std()).contiguous(
        memory_format=torch.channels_last)
    for seed in range(given.first, given.first + given.seeds):
        whole = None
        for method in ITERATIONS:
            seconds, loss = trained(method, lambda: residual_cnn(
                layers=STEPS, channels=given.channels, step_size=T / STEPS), images, found.train_labels, seed)
            whole = whole or seconds
            print(f"seed {seed}  {method:16s} {seconds:6.1f} s, "
                  f"{seconds / whole:.2f}  train loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
