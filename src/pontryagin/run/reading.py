"""Samples that other processes read, ahead of the batch that is being trained on."""

import pickle
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pontryagin.optim.snapshot import seed_generators
from pontryagin.run.errors import ExperimentError
from pontryagin.run.samples import Batch, DatasetSamples, Samples

_ATTEMPTS = 3
"""At a batch whose processes have ended: a signal to all processes of a terminal ends them once."""


def batches(samples: Samples, rows: Callable[[int], Tensor], seeds: tuple[int, ...],
            end: int) -> Callable[[int], Batch]:
    """What gives the batch of iteration 0, 1, ..., end - 1. seeds: of the random numbers that reading draws,
    where other processes read."""
    if isinstance(samples, DatasetSamples) and samples.workers:
        return ReadAhead(samples, rows, seeds, end)
    return lambda iteration: samples.rows(rows(iteration))


def in_turn(samples: Samples, parts: Iterable[Tensor]) -> Iterator[Batch]:
    """The batches of these rows; of one no other process is started."""
    chunks = list(parts)
    if len(chunks) == 1:
        return map(samples.rows, chunks)
    return map(batches(samples, chunks.__getitem__, (), len(chunks)), range(len(chunks)))


class ReadAhead:
    """Batches of a data set, read by `samples.workers` processes, from any iteration on.

    A batch depends on its rows, the seeds and its iteration alone: the generators of torch, numpy and Python
    are seeded for each, so that neither the number of processes nor where reading begins changes it. Raises
    ExperimentError for what the data set raises, and where processes end again and again.
    """

    def __init__(self, samples: DatasetSamples, rows: Callable[[int], Tensor], seeds: tuple[int, ...],
                 end: int) -> None:
        self._samples, self._rows, self._seeds, self._end = samples, rows, seeds, end
        self._next = -1
        self._found: Iterator[Any] = iter(())

    def __call__(self, iteration: int) -> Batch:
        """That of this iteration; those that follow are being read then."""
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                if iteration != self._next:
                    self._found = self._from(iteration)
                batch = pickle.loads(next(self._found))
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                raise ExperimentError("--num-workers: the data set cannot be sent to other processes "
                                      f"({error}): define it in a module, or leave --num-workers out"
                                      ) from error
            except RuntimeError as error:  # torch: a process has ended, or was killed
                self._next, reason = -1, " ".join(str(error).split())[:200]
                continue
            if isinstance(batch, ExperimentError):
                raise batch
            self._next = iteration + 1
            return self._samples.moved(batch)
        raise ExperimentError(f"--num-workers: the processes that read samples have ended {_ATTEMPTS} times "
                              f"({reason}): take fewer of them, or none to see what ends them")

    def _from(self, iteration: int) -> Iterator[Any]:
        self._found = iter(())  # ends the processes that read elsewhere
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are more processes than cores
            return iter(DataLoader(
                _Requests(self._samples, self._seeds), batch_size=None, collate_fn=_as_it_is,
                sampler=((number, self._rows(number).tolist()) for number in range(iteration, self._end)),
                num_workers=self._samples.workers, worker_init_fn=_begin,
                generator=torch.Generator()))  # its own: the run's generators are left alone


class _Requests(Dataset[Any]):
    """A data set whose items are pickled batches, by iteration and rows. (Neither rows nor batches travel as
    tensors: of one a process asks the other for the memory, with a traceback where that has ended.)"""

    def __init__(self, samples: DatasetSamples, seeds: tuple[int, ...]) -> None:
        self.samples, self.seeds = samples, seeds

    def __getitem__(self, request: tuple[int, list[int]]) -> bytes:
        """Of the batch, or of an ExperimentError, which is raised where the batch is used."""
        iteration, rows = request
        seed_generators(int(np.random.SeedSequence([*self.seeds, iteration]).generate_state(1)[0]))
        try:
            return pickle.dumps(self.samples.read(torch.tensor(rows, dtype=torch.int64)))
        except ExperimentError as error:
            return pickle.dumps(error)


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin(number: int) -> None:
    """A process that reads leaves Ctrl-C, which a terminal sends to all, to the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
