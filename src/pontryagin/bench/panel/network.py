"""A network of the panel: what is trained on what, and for how long."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, nn

from pontryagin.bench.panel.calibration import iterations
from pontryagin.run.objective import Objective
from pontryagin.run.race import Workload
from pontryagin.run.trainer import Batch

EVALUATION_SEED = 999
"""Of the training samples on which losses are measured."""


@dataclass(frozen=True)
class Work:
    """build: the module, from torch's global generator. draw(generator, n): n training samples. size: of a
    batch. measured: how many fixed samples the loss of a run is measured on; exact: draws these, where they
    differ from those of training, as without the noise of targets."""

    build: Callable[[], nn.Module]
    draw: Callable[[Generator, int], Batch]
    size: int
    objective: Objective
    measured: int = 500
    exact: Callable[[Generator, int], Batch] | None = None

    def batches(self, seed: int) -> Iterator[Batch]:
        """The same for the same seed, without end."""
        generator = Generator().manual_seed(seed)
        while True:
            yield self.draw(generator, self.size)

    def workload(self, seed: int) -> Workload:
        """Of a run."""
        batches = self.batches(seed)
        return Workload(self.build, self.objective, lambda _: next(batches), self.size)

    def evaluation(self) -> Batch:
        """The fixed samples."""
        return (self.exact or self.draw)(Generator().manual_seed(EVALUATION_SEED), self.measured)

    @torch.no_grad()
    def loss(self, model: nn.Module, samples: Batch) -> float:
        """The mean over these samples, of a model in eval mode."""
        inputs, targets = samples
        return self.objective.mean(model(inputs), targets).item()


@dataclass(frozen=True)
class Network:
    """work: made when it is needed, from the folder of the image files. tuned_on: whether EMSA's defaults
    were chosen on it."""

    name: str
    kind: str
    work: Callable[[str | None], Work]
    tuned_on: bool = False

    def iterations(self, method: str, seconds: float) -> int:
        """Of a run: see calibration.PACES."""
        return iterations(self.name, method, seconds)
