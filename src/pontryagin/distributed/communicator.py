"""How results travel: torch.distributed, or nothing at all for one process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, distributed

from pontryagin.problem import ProblemError

Form = tuple[torch.Size, torch.dtype]
"""Shape and dtype of a tensor that is to arrive."""


@dataclass(frozen=True)
class Pending:
    """Something on its way. wait() returns it; called once."""

    wait: Callable[[], list[Tensor]]


@runtime_checkable
class Communicator(Protocol):
    """Collective operations: every rank calls each of them, in the same order."""

    rank: int
    size: int
    seconds: float
    """Wall clock spent in here so far: sending, and waiting for other ranks."""

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, the same on every rank."""

    def exchange(self, outgoing: Sequence[Sequence[Tensor]],
                 incoming: Sequence[Sequence[Form]]) -> list[list[Tensor]]:
        """outgoing[r] goes to rank r; returns what each rank sent here, of the announced forms."""

    def spread(self, own: Tensor, rows: Sequence[int]) -> Pending:
        """Send `own` to all; gives what each rank spread, rows[r] rows like own's. Returns before it has
        arrived."""

    def gather(self, value: Any) -> list[Any]:
        """A small picklable value of every rank."""


class Alone:
    """One process: everything is where it is needed already. No copies."""

    rank, size, seconds = 0, 1, 0.0

    def sum(self, values: Tensor) -> Tensor:
        """The values."""
        return values

    def exchange(self, outgoing: Sequence[Sequence[Tensor]],
                 incoming: Sequence[Sequence[Form]]) -> list[list[Tensor]]:
        """What goes to oneself."""
        return [list(outgoing[0])]

    def spread(self, own: Tensor, rows: Sequence[int]) -> Pending:
        """Its own."""
        return Pending(lambda: [own])

    def gather(self, value: Any) -> list[Any]:
        """Its own."""
        return [value]


class Processes:
    """The ranks of a torch.distributed process group, by default of all processes.

    Raises ProblemError when the default group has not been initialized.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        if not (distributed.is_available() and distributed.is_initialized()):
            raise ProblemError("torch.distributed is not initialized: start with torchrun and call "
                               "pontryagin.distributed.join() first")
        self.group = group
        self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)
        self.seconds = 0.0

    def sum(self, values: Tensor) -> Tensor:
        """all_reduce of a copy."""
        began = perf_counter()
        result = values.clone()
        distributed.all_reduce(result, group=self.group)
        self.seconds += perf_counter() - began
        return result

    def exchange(self, outgoing: Sequence[Sequence[Tensor]],
                 incoming: Sequence[Sequence[Form]]) -> list[list[Tensor]]:
        """One all_to_all of flat buffers."""
        began = perf_counter()
        arriving = [form for forms in incoming for form in forms]
        every = [*(tensor.dtype for tensors in outgoing for tensor in tensors),
                 *(dtype for _, dtype in arriving)]
        dtype = torch.float32 if not every else max(every, key=lambda kind: kind.itemsize)
        sent = [sum(tensor.numel() for tensor in tensors) for tensors in outgoing]
        received = [sum(shape.numel() for shape, _ in forms) for forms in incoming]
        device = next((tensor.device for tensors in outgoing for tensor in tensors), torch.device("cpu"))
        packed = torch.empty(sum(sent), dtype=dtype, device=device)
        _pack(packed, [tensor for tensors in outgoing for tensor in tensors])
        buffer = torch.empty(sum(received), dtype=dtype, device=device)
        distributed.all_to_all_single(buffer, packed, received, sent, group=self.group)
        pieces = iter(torch.split_with_sizes(buffer, [shape.numel() for shape, _ in arriving]))
        result = [[next(pieces).view(shape).to(kind) for shape, kind in forms] for forms in incoming]
        self.seconds += perf_counter() - began
        return result

    def spread(self, own: Tensor, rows: Sequence[int]) -> Pending:
        """A broadcast from each rank that has rows, all under way at once."""
        began = perf_counter()
        parts = [own.contiguous() if rank == self.rank else own.new_empty(count, *own.shape[1:])
                 for rank, count in enumerate(rows)]
        works = [distributed.broadcast(part, group_src=rank, group=self.group, async_op=True)
                 for rank, part in enumerate(parts) if part.numel()]
        self.seconds += perf_counter() - began

        def wait() -> list[Tensor]:
            began = perf_counter()
            for work in works:
                work.wait()
            self.seconds += perf_counter() - began
            return parts

        return Pending(wait)

    def gather(self, value: Any) -> list[Any]:
        """all_gather_object."""
        began = perf_counter()
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value, group=self.group)
        self.seconds += perf_counter() - began
        return found


def _pack(buffer: Tensor, tensors: Sequence[Tensor]) -> None:
    for place, tensor in zip(torch.split_with_sizes(buffer, [tensor.numel() for tensor in tensors]), tensors,
                             strict=True):
        place.view(tensor.shape).copy_(tensor)
