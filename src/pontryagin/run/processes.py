"""A run by several processes, all of which do the same but for what rank 0 does; and how it stops."""

import hashlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

import torch
from torch import nn

from pontryagin.distributed import Alone, Communicator, join, require_same
from pontryagin.distributed.agreement import digest, versions, words

_current: ContextVar[Communicator | None] = ContextVar("processes", default=None)


@contextmanager
def processes(timeout: float | None = None) -> Iterator[Communicator]:
    """The processes that torchrun has started, for all that is run inside; without it this one alone."""
    with join() if timeout is None else join(timeout) as communicator:
        token = _current.set(communicator)
        try:
            yield communicator
        finally:
            _current.reset(token)


def present() -> Communicator:
    """The processes that run together now."""
    return _current.get() or Alone()


def network_of(model: nn.Module) -> nn.Module:
    """What a training step calls: the model, or its DistributedDataParallel, which averages gradients.

    It makes its buckets anew after the first backward pass, in which sums over three processes and more are
    rounded in another order, unless it looks for unused parameters: so a run that was resumed would not be
    that which was left alone.
    """
    if present().size == 1:
        return model
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)


def mean(value: float) -> float:
    """Over processes, each counted alike; the same on all."""
    communicator = present()
    if communicator.size == 1:
        return value
    return communicator.sum(torch.tensor(value, dtype=torch.float64)).item() / communicator.size


class Stop:
    """While entered: the first SIGINT or SIGTERM is noted, to be obeyed between two iterations; a second
    SIGINT ends the program at once."""

    def __init__(self) -> None:
        self._communicator, self._noted = present(), False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether any process has been asked to stop; to be read by all of them equally often."""
        if self._communicator.size == 1:
            return self._noted
        return bool(self._communicator.sum(torch.tensor(float(self._noted))))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._noted = True

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def require_same_run(description: dict[str, Any], settings: dict[str, Any], model: nn.Module,
                     data: Callable[[], dict[str, str]]) -> None:
    """Refuse processes of other versions, data, settings or initial weights. Raises ProblemError on all.
    data: what tells data from others."""
    communicator = present()
    if communicator.size > 1:
        weights = digest(*model.state_dict().values())
        require_same(communicator,
                     {**versions(), "task": _short(description), "settings and seeds": _short(settings),
                                    "initial weights": weights, **data()})


def _short(value: object) -> str:
    text = words(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({hashlib.sha256(text.encode()).hexdigest()[:12]})"
