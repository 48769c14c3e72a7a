"""Joining the processes that torchrun has started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from pontryagin.distributed.communicator import Alone, Communicator, Processes
from pontryagin.distributed.last_words import LastWords, meet, not_met

TIMEOUT = 60.0
"""Seconds after which a rank that waits in vain gives up: long beside an iteration, short beside a run."""


def launched() -> bool:
    """Whether torchrun has started this process, with others or as the only one."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


@contextmanager
def join(timeout: float = TIMEOUT, backend: str | None = None) -> Iterator[Communicator]:
    """The processes of torchrun as a Communicator, left at the end; one process without torchrun.

    timeout: seconds that the meeting of all ranks, and a collective operation, may wait for another rank
    before it raises; torchrun ends all ranks sooner when one of them dies. backend: by default nccl where
    there are GPUs, with one a process, and gloo elsewhere. Raises LostProcessError where not all ranks come
    in time, and, with the first cause, when another one has ended or does not answer. All leave together.
    """
    if not launched():
        yield Alone()
        return
    cuda = torch.cuda.is_available() and torch.cuda.device_count() > int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        store = _meet(timeout, backend or ("nccl" if cuda else "gloo"))
    except distributed.DistError as error:
        why = str(error).strip().partition("\n")[0]
        raise not_met(os.environ["WORLD_SIZE"], timeout, why) from error
    try:
        communicator = Processes()
        with LastWords(store, communicator).spoken():
            yield communicator
    finally:
        distributed.destroy_process_group()


def _meet(timeout: float, backend: str) -> distributed.Store:
    limit = timedelta(seconds=timeout)
    store, rank, size = next(distributed.rendezvous("env://", timeout=limit))
    # torchrun may keep its store over a restart, with the addresses of processes that have died
    attempt = distributed.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    meet(attempt, rank, size, timeout)
    distributed.init_process_group(backend, timeout=limit, store=attempt, rank=rank, world_size=size)
    return attempt
