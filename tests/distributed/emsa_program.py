"""Run by torchrun: EMSA under DistributedDataParallel, each rank with its rows of every global batch, of
uneven sizes."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from pontryagin.distributed import join, share
from pontryagin.optim import EMSA, Metric


def model() -> nn.Module:
    """Two equal stages, a norm, a convolution."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 8), nn.Tanh(),
                         nn.Linear(8, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)).double()


def trained(iterations: int, rank: int, ranks: int) -> list[Tensor]:
    """Parameters after EMSA on batches of 7, 8 or 9 samples."""
    network = model()
    called = nn.parallel.DistributedDataParallel(network) if ranks > 1 else network
    optimizer = EMSA(network, metric=Metric(moment_rows=None, refresh_budget=1e9))
    generator = torch.Generator().manual_seed(1)
    for number in range(iterations):
        samples = 7 + number % 3
        x = torch.randn(samples, 1, 4, 4, generator=generator, dtype=torch.float64)
        y = torch.randint(0, 3, (samples,), generator=generator)
        rows = share(samples, rank, ranks)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(called(x[rows]), y[rows])
        # ranks count by their samples, not alike
        (loss * (rows.stop - rows.start) * ranks / samples).backward()
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with join() as communicator:
        found = trained(int(sys.argv[2]), communicator.rank, communicator.size)
        torch.save({"parameters": found}, Path(sys.argv[1]) / f"rank{communicator.rank}.pt")
