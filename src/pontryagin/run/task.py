"""What is trained: a network, samples by their rows, an objective, and the batches of each seed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pontryagin.problem.ignored import IGNORED
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import Method
from pontryagin.run.metric import Metric
from pontryagin.run.objective import Objective, check_classes, class_second
from pontryagin.run.processes import present
from pontryagin.run.race import Run, Workload
from pontryagin.run.reading import batches
from pontryagin.run.samples import DatasetSamples, Samples, TensorSamples, read_by
from pontryagin.run.settings import SCHEDULES, RunSettings, Schedule
from pontryagin.run.trainer import Passes, output_of
from pontryagin.run.user_code import cause, kind_of


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

    def batch(self, iteration: int) -> Tensor:
        """The rows of the batch of iteration 0, 1, ..."""
        epoch, position = divmod(iteration, self.batches)
        return _epoch(self, epoch)[position]

    def epoch(self, number: int) -> Tensor:
        """The rows of all batches of epoch 0, 1, ...: (batch, row)."""
        # 32 bits, all that torch's generator takes in, that depend on both numbers as a whole
        mixed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(mixed))
        whole = order[:self.batches * self.batch_size].view(self.batches, self.batch_size)
        return whole[:, self.rank::self.processes]


@lru_cache(maxsize=2)  # runs that take turns are in the same epoch, or an iteration apart
def _epoch(sampler: Sampler, number: int) -> Tensor:
    return sampler.epoch(number)


@dataclass(frozen=True)
class Task:
    """build: the network at its start, from torch's global generator. description: in plain types, what the
    task was made from; checkpoints keep it, and a resumed run must have the same. validation: samples that
    are evaluated too; metric: is measured beside the loss."""

    name: str
    build: Callable[[], nn.Module]
    train: Samples
    test: Samples
    objective: Objective
    description: dict[str, Any]
    validation: Samples | None = None
    metric: Metric | None = None

    def parts(self) -> dict[str, Samples]:
        """The samples by name: train, test, and validation if there is such a part."""
        found = {"train": self.train, "test": self.test}
        return found if self.validation is None else found | {"validation": self.validation}

    def to(self, device: torch.device, dtype: torch.dtype) -> "Task":
        """Data and network there."""
        return self._with({name: samples.to(device, dtype) for name, samples in self.parts().items()},
                          lambda: self.build().to(device, dtype))

    def read_by(self, workers: int) -> "Task":
        """Its samples read by so many processes. Raises ExperimentError where nothing is read."""
        if workers and not isinstance(self.train, DatasetSamples):
            raise ExperimentError("--num-workers: these data are tensors in memory, of which nothing is "
                                  "read: leave it out")
        return self._with({name: read_by(samples, workers) for name, samples in self.parts().items()},
                          self.build)

    def _with(self, parts: dict[str, Samples], build: Callable[[], nn.Module]) -> "Task":
        return replace(self, build=build, train=parts["train"], test=parts["test"],
                       validation=parts.get("validation"))

    def guess(self) -> float | None:
        """The share of the test samples that are of the class commonest in training: what a guess gets. None
        where no classes are told, or the samples are not in memory."""
        if not (self.objective.classifies and isinstance(self.train, TensorSamples)
                and isinstance(self.test, TensorSamples)):
            return None
        seen, asked = (part.targets[part.targets != IGNORED] for part in (self.train, self.test))
        return float((asked == seen.mode().values).double().mean()) if len(seen) and len(asked) else None

    def check(self) -> None:
        """One small batch of each part through the network, in the mode that it will have, and the objective,
        before any work. Raises ExperimentError."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = self.build()
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise ExperimentError(f"{self.name}: the network has no parameter to train")
            for part, samples in self.parts().items():
                self._check_part(model.train(part == "train"), part, samples)

    def _check_part(self, model: nn.Module, part: str, samples: Samples) -> None:
        inputs, targets = samples.rows(torch.arange(min(2, len(samples))))
        with torch.set_grad_enabled(part == "train"):
            output = output_of(model, inputs)
            if self.objective.classifies:
                self._check_classes(part, samples, class_second(output, targets), targets)
            try:
                loss = self.objective.mean(output, targets)
                if self.metric is not None:
                    self.metric(output, targets)
            except (ExperimentError, KeyboardInterrupt):
                raise
            except BaseException as error:
                raise ExperimentError(
                    f"{self.name}, {part}: network, data and loss {self.objective.name} do not fit: outputs "
                    f"{kind_of(output)}, targets {kind_of(targets)} of {targets.dtype}: {cause(error)}"
                ) from error
        if part == "train" and not loss.requires_grad:
            raise ExperimentError(f"{self.name}: the loss has no gradient by any parameter: look for detach, "
                                  "no_grad or whole numbers in the network and the loss")
        if loss.ndim:
            raise ExperimentError(f"{self.name}: the loss gave shape {tuple(loss.shape)} where a number was "
                                  "expected")

    def _check_classes(self, part: str, samples: Samples, scores: Tensor, targets: Tensor) -> None:
        if scores.ndim < 2 or targets.is_floating_point() or (*scores.shape[:1],
                                                              *scores.shape[2:]) != tuple(targets.shape):
            raise ExperimentError(f"{self.name}, {part}: classification expects outputs (sample, class, ...) "
                                  f"or (sample, ..., class) and whole-number targets (sample, ...), found "
                                  f"{tuple(scores.shape)} and {tuple(targets.shape)} of {targets.dtype}")
        if isinstance(samples, TensorSamples):
            check_classes(samples.targets, scores.shape[1], f"{self.name}, {part}")


def horizon_of(task: Task, settings: RunSettings) -> int:
    """Iterations of a run."""
    return settings.iterations or settings.epochs * (len(task.train) // settings.batch_size)


def warm_up_of(task: Task, settings: RunSettings) -> int:
    """Iterations in which the rate rises. Raises ExperimentError when no others are left."""
    horizon, wanted = horizon_of(task, settings), settings.warm_up
    found = ceil(wanted * horizon) if wanted < 1 else int(wanted)
    if found and found >= horizon:
        raise ExperimentError(f"--warm-up {wanted:g}: the run has {horizon} iterations; expected fewer, or a "
                              "share of them below 1")
    return found


def scheduled(settings: RunSettings, horizon: int, warm_up: int) -> Schedule:
    """The factor of the rate: (k + 1) / (warm_up + 1) for the first iterations k = 0, 1, ..., then the
    schedule over those that are left."""
    schedule = SCHEDULES[settings.schedule]
    if not warm_up:
        return schedule

    def factor(done: float) -> float:
        iteration = round(done * horizon)
        return ((iteration + 1) / (warm_up + 1) if iteration < warm_up
                else schedule((iteration - warm_up) / (horizon - warm_up)))

    return factor


def run_of(task: Task, settings: RunSettings, method: Method, seed: int, rate: float) -> Run:
    """A method with one seed at its start: weights and batches depend on the seed alone."""
    rank, size = present().rank, present().size
    sampler = Sampler(len(task.train), settings.batch_size, seed, rank, size)
    horizon = horizon_of(task, settings)
    workload = Workload(task.build, task.objective,
                        batches(task.train, sampler.batch, (seed, rank), horizon), settings.batch_size)
    return Run(method, seed, rate, workload, horizon, length=settings.limits.get(method.name),
               schedule=scheduled(settings, horizon, warm_up_of(task, settings)),
               options=settings.options.get(method.name),
               passes=Passes(settings.autocast, settings.clip_norm),
               title=method.name if settings.seeds == (0,) else f"{method.name} seed {seed}")
