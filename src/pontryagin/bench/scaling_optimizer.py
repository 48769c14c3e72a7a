"""Started by torchrun with a table and a round: EMSA on the paper's CNN under DistributedDataParallel, random
images, the batch of 100 shared by the ranks."""

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import distributed, nn

from pontryagin.bench.scaling_worker import COLUMNS, PARTS
from pontryagin.distributed import join
from pontryagin.optim import EMSA
from pontryagin.run.files import Table
from pontryagin.run.models.residual_cnn import residual_cnn

BATCH, WARM_UP, ITERATIONS, LAYERS, CHANNELS = 100, 20, 60, 7, 32


def iterations(rank: int, ranks: int) -> list[float]:
    """Seconds of each iteration after the warm-up, from barrier to barrier: forward, backward, step."""
    torch.manual_seed(0)
    model = residual_cnn(layers=LAYERS, channels=CHANNELS)
    images = torch.randn(BATCH, 1, 28, 28)[rank::ranks]
    labels = torch.randint(10, (BATCH,))[rank::ranks]
    trained = nn.parallel.DistributedDataParallel(model) if ranks > 1 else model
    optimizer, seconds = EMSA(trained), []
    for _ in range(WARM_UP + ITERATIONS):
        distributed.barrier()
        began = perf_counter()
        loss = nn.functional.cross_entropy(trained(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distributed.barrier()
        seconds.append(perf_counter() - began)
    return seconds[WARM_UP:]


def main(table: Path, number: int) -> None:
    """A row with the median of the seconds."""
    torch.set_num_threads(1)
    with join() as communicator:
        seconds = median(iterations(communicator.rank, communicator.size))
        if communicator.rank == 0:
            out = Table(table, COLUMNS, keep=table.stat().st_size)
            unknown = [None] * (len(PARTS) + 1)
            out.add("optimizer", "emsa", LAYERS + 3, CHANNELS, BATCH, communicator.size, number, seconds,
                    *unknown)
            out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
