"""A run by several processes, all of which do the same but for what rank 0 does; and how it stops."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pontryagin.distributed import Alone, Communicator, join

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


def group() -> distributed.ProcessGroup | None:
    """Of the processes that run together, for those that speak by themselves; None for one process alone."""
    return distributed.group.WORLD if present().size > 1 else None


@torch.no_grad()
def share_pass(model: nn.Module) -> None:
    """After a backward pass: gradients become their means over processes, buffers those of rank 0.

    All that has a dtype travels as one tensor, in the order of the model, so that sums over any number of
    processes are rounded alike in every pass: a run that is resumed is that which was left alone.
    DistributedDataParallel makes its buckets anew after the first pass, and asks which parameters are used. A
    parameter that no process has used keeps no gradient.
    """
    communicator = present()
    if communicator.size == 1:
        return
    trained = [each for each in model.parameters() if each.requires_grad]
    used = communicator.sum(torch.tensor([float(each.grad is not None) for each in trained])).tolist()
    sums = [each for each, users in zip(trained, used, strict=True) if users]
    for each in sums:
        each.grad = torch.zeros_like(each) if each.grad is None else each.grad.to_dense()
    _all_at_once([each.grad for each in sums if each.grad is not None],
                 lambda whole: communicator.sum(whole) / communicator.size)
    others = [0] * (communicator.size - 1)
    _all_at_once(list(model.buffers()), lambda whole: communicator.broadcast(
        whole[:0] if communicator.rank else whole, [len(whole), *others]).wait()[0])


def _all_at_once(tensors: Sequence[Tensor], sent: Callable[[Tensor], Tensor]) -> None:
    """Replace the values of tensors by what is sent for all of a dtype in one."""
    alike: dict[torch.dtype, list[Tensor]] = {}
    for each in tensors:
        real = torch.view_as_real(each) if each.is_complex() else each
        alike.setdefault(real.dtype, []).append(real)
    for some in alike.values():
        arrived = sent(torch.cat([each.reshape(-1) for each in some]))
        for each, values in zip(some, arrived.split([each.numel() for each in some]), strict=True):
            each.copy_(values.view(each.shape))


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
