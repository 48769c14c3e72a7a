"""Which samples make up each batch: decided by (seed, epoch) alone, so that a place in the run is two
numbers."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pontryagin.run.errors import ExperimentError


@dataclass(frozen=True)
class Sampler:
    """Mini-batches of a permutation per epoch; the rest that does not fill a batch is left out of the epoch.

    With several processes each takes every `processes`-th row of the batch, beginning at `rank`, so that
    together they see the batches that one process would.
    """

    samples: int
    batch_size: int
    seed: int
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.samples:
            raise ExperimentError(f"--batch-size: expected 1 to {self.samples}, the samples of the training "
                                  f"set, found {self.batch_size}")
        if not 0 <= self.rank < self.processes or self.batch_size % self.processes:
            raise ExperimentError(f"a batch of {self.batch_size} cannot be shared evenly by {self.processes} "
                                  f"processes (rank {self.rank}): choose a multiple")

    @property
    def batches(self) -> int:
        """In an epoch."""
        return self.samples // self.batch_size

    def epoch(self, number: int) -> Tensor:
        """The rows of all batches of epoch 0, 1, ...: (batch, row)."""
        generator = torch.Generator().manual_seed(_mixed(self.seed, number))
        order = torch.randperm(self.samples, generator=generator)
        whole = order[:self.batches * self.batch_size].view(self.batches, self.batch_size)
        return whole[:, self.rank::self.processes]


def _mixed(seed: int, epoch: int) -> int:
    """32 bits, all that torch's generator takes in, that depend on both numbers as a whole."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
