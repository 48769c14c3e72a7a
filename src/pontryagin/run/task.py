"""What is trained: a network, samples by their rows, an objective, and the batches of each seed."""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import Dataset, TensorDataset, default_collate

from pontryagin.distributed.agreement import digest
from pontryagin.optim.snapshot import generator_states, seed_generators, set_generators
from pontryagin.problem.ignored import IGNORED
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import Method
from pontryagin.run.objective import Objective, check_classes, class_second
from pontryagin.run.processes import present
from pontryagin.run.race import Run, Workload
from pontryagin.run.settings import SCHEDULES, RunSettings
from pontryagin.run.trainer import Batch, output_of
from pontryagin.run.user_code import cause, kind_of

_READ = 64
"""Samples of a Dataset that are read to tell it from another."""


class Samples(Protocol):
    """Inputs and targets that are asked for by row."""

    def __len__(self) -> int:
        """How many."""

    def rows(self, rows: Tensor) -> Batch:
        """The inputs and targets of these rows, on the run's device, floating point numbers in its dtype."""

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Samples":
        """The same there."""


@dataclass(frozen=True)
class TensorSamples:
    """inputs (sample, ...) and targets (sample, ...), all in memory."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        shapes = tuple(self.inputs.shape), tuple(self.targets.shape)
        if not all(shapes) or shapes[0][0] != shapes[1][0] or not shapes[0][0]:
            raise ExperimentError("expected as many targets as inputs, at least one, found shapes "
                                  f"{shapes[0]} and {shapes[1]}")

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, rows: Tensor) -> Batch:
        rows = rows.to(self.inputs.device)
        return self.inputs[rows], self.targets[rows]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "TensorSamples":
        return TensorSamples(_moved(self.inputs, device, dtype), _moved(self.targets, device, dtype))


@dataclass(frozen=True)
class DatasetSamples:
    """A torch Dataset of (input, target), read in this process: random transforms resume bitwise."""

    dataset: Dataset[Any]
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)
        return len(self.dataset)

    def rows(self, rows: Tensor) -> Batch:
        name, row, items = type(self.dataset).__name__, 0, []
        try:
            for row in rows.tolist():
                items.append(pair_of(self.dataset[row]))
        except IndexError as error:
            raise ExperimentError(f"{name}, sample {row}: {cause(error)}; its length is said to be "
                                  f"{len(self)}: is it shorter?") from error
        except ExperimentError as error:
            raise ExperimentError(f"{name}, sample {row}: {error}") from error
        except (Exception, SystemExit) as error:
            raise ExperimentError(f"{name}, sample {row}: {cause(error)}") from error
        try:
            inputs, targets = default_collate(items)
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
            raise ExperimentError(f"{name}: expected samples of equal shapes that torch can stack, found "
                                  f"{kind_of(items[0])} first ({cause(error)})") from error
        if not all(isinstance(one, Tensor) and is_dense(one)
                   for one in tree_leaves((inputs, targets))):
            raise ExperimentError(f"{name}: expected inputs and targets that are dense tensors, numpy arrays "
                                  f"or numbers, found {kind_of(items[0])}")
        return _moved(inputs, self.device, self.dtype), _moved(targets, self.device, self.dtype)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "DatasetSamples":
        return DatasetSamples(self.dataset, device, dtype)


def _facts(samples: Samples) -> str:
    """Of all samples in memory, of others of so many at even distances; generators are left as they were."""
    rows, states = torch.arange(len(samples)), generator_states()
    if not isinstance(samples, TensorSamples):
        rows = rows[::max(len(samples) // _READ, 1)]
    try:
        seed_generators(0)
        batch = tree_leaves(samples.rows(rows))
    finally:
        set_generators(states)
    shapes = ", ".join(str(tuple(values.shape[1:])) for values in batch)
    return f"{len(samples)} samples of {shapes}, digest {digest(*batch)}"


def samples_of(data: tuple[Tensor, Tensor] | Dataset[Any]) -> Samples:
    """Of a pair of tensors, a TensorDataset of two, or any Dataset with a length."""
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return TensorSamples(*data.tensors)
    return TensorSamples(*data) if isinstance(data, tuple) else DatasetSamples(data)


def pair_of(item: Any) -> tuple[Any, Any]:
    """Input and target of a sample: a pair, or a dict with a target under `labels` or `label`, the rest of
    which is the input. Raises ExperimentError."""
    if isinstance(item, Mapping):
        key = next((key for key in _LABELS if key in item), None)
        if key is not None and len(item) > 1:
            return {name: value for name, value in item.items() if name != key}, item[key]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise ExperimentError("expected a pair (input, target), or a dict of inputs with a target under "
                              f"`labels`; found {kind_of(item)}: write such a pair in __getitem__")
    return item[0], item[1]


_LABELS = ("labels", "label")
"""Of data sets of Hugging Face."""


def is_dense(values: Tensor) -> bool:
    """Real numbers, all of them there."""
    return values.layout == torch.strided and not values.is_meta and not values.is_complex()


def _moved(values: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    """A tensor, or several within dicts and tuples."""
    return tree_map(lambda one: one.to(device, dtype) if one.is_floating_point() else one.to(device), values)


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
    task was made from; checkpoints keep it, and a resumed run must have the same."""

    name: str
    build: Callable[[], nn.Module]
    train: Samples
    test: Samples
    objective: Objective
    description: dict[str, Any]

    def to(self, device: torch.device, dtype: torch.dtype) -> "Task":
        """Data and network there."""
        return Task(self.name, lambda: self.build().to(device, dtype), self.train.to(device, dtype),
                    self.test.to(device, dtype), self.objective, self.description)

    def guess(self) -> float | None:
        """The share of the test samples that are of the class commonest in training: what a guess gets. None
        where no classes are told, or the samples are not in memory."""
        if not (self.objective.classifies and isinstance(self.train, TensorSamples)
                and isinstance(self.test, TensorSamples)):
            return None
        seen, asked = (part.targets[part.targets != IGNORED] for part in (self.train, self.test))
        return float((asked == seen.mode().values).double().mean()) if len(seen) and len(asked) else None

    def facts(self) -> dict[str, str]:
        """What tells its data from others of the same name: numbers of samples, shapes and a digest."""
        return {f"{part} data": _facts(samples) for part, samples in (("training", self.train),
                                                                      ("test", self.test))}

    def check(self) -> None:
        """One small batch through the network and the objective, before any work. Raises ExperimentError."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = self.build()
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise ExperimentError(f"{self.name}: the network has no parameter to train")
            for part, samples in (("train", self.train), ("test", self.test)):
                self._check_part(model, part, samples)

    def _check_part(self, model: nn.Module, part: str, samples: Samples) -> None:
        inputs, targets = samples.rows(torch.arange(min(2, len(samples))))
        with torch.no_grad():
            output = output_of(model, inputs)
            if self.objective.classifies:
                self._check_classes(part, samples, class_second(output, targets), targets)
            try:
                loss = self.objective.mean(output, targets)
            except ExperimentError:
                raise
            except (Exception, SystemExit) as error:
                raise ExperimentError(
                    f"{self.name}, {part}: network, data and loss {self.objective.name} do not fit: outputs "
                    f"{kind_of(output)}, targets {kind_of(targets)} of {targets.dtype}: {cause(error)}"
                ) from error
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


def run_of(task: Task, settings: RunSettings, method: Method, seed: int, rate: float) -> Run:
    """A method with one seed at its start: weights and batches depend on the seed alone."""
    sampler = Sampler(len(task.train), settings.batch_size, seed, present().rank, present().size)
    workload = Workload(task.build, task.objective, lambda k: task.train.rows(sampler.batch(k)),
                        settings.batch_size)
    return Run(method, seed, rate, workload, horizon_of(task, settings),
               length=settings.limits.get(method.name), schedule=SCHEDULES[settings.schedule],
               options=settings.options.get(method.name),
               title=method.name if settings.seeds == (0,) else f"{method.name} seed {seed}")
