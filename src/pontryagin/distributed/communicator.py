"""How results travel: torch.distributed, or nothing at all for one process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

    def largest(self, values: Tensor) -> Tensor:
        """The largest of each entry over ranks."""

    def exchange(self, outgoing: Sequence[Sequence[Tensor]],
                 incoming: Sequence[Sequence[Form]]) -> list[list[Tensor]]:
        """outgoing[r] goes to rank r; returns what each rank sent here, of the announced forms."""

    def begin_exchange(self, outgoing: Sequence[Sequence[Tensor]], incoming: Sequence[Sequence[Form]],
                       dtype: torch.dtype) -> Pending:
        """The same in this dtype, but returns before it arrives; gives all that arrives in one list, rank
        after rank."""

    def stack(self, values: Tensor) -> Tensor:
        """What every rank has, of the same shape, (rank, *)."""

    def broadcast(self, own: Tensor, rows: Sequence[int]) -> Pending:
        """Send `own` to all; gives what each sent, rows[r] rows like own's. Returns before it arrives."""

    def gather(self, value: Any) -> list[Any]:
        """A small picklable value of every rank."""


class Alone:
    """One process: everything is where it is needed already. No copies."""

    rank, size, seconds = 0, 1, 0.0

    def sum(self, values: Tensor) -> Tensor:
        return values

    def largest(self, values: Tensor) -> Tensor:
        return values

    def exchange(self, outgoing: Sequence[Sequence[Tensor]],
                 incoming: Sequence[Sequence[Form]]) -> list[list[Tensor]]:
        return [list(outgoing[0])]

    def begin_exchange(self, outgoing: Sequence[Sequence[Tensor]], incoming: Sequence[Sequence[Form]],
                       dtype: torch.dtype) -> Pending:
        return Pending(lambda: list(outgoing[0]))

    def stack(self, values: Tensor) -> Tensor:
        return values.unsqueeze(0)

    def broadcast(self, own: Tensor, rows: Sequence[int]) -> Pending:
        return Pending(lambda: [own])

    def gather(self, value: Any) -> list[Any]:
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
        on_cuda = distributed.get_backend(group) == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        began = perf_counter()
        yield
        self.seconds += perf_counter() - began

    def sum(self, values: Tensor) -> Tensor:
        return self._reduced(values, distributed.ReduceOp.SUM)

    def largest(self, values: Tensor) -> Tensor:
        return self._reduced(values, distributed.ReduceOp.MAX)

    def _reduced(self, values: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        with self._counted():
            result = values.clone()
            distributed.all_reduce(result, op=operation, group=self.group)
            return result

    def exchange(self, outgoing: Sequence[Sequence[Tensor]],
                 incoming: Sequence[Sequence[Form]]) -> list[list[Tensor]]:
        """In the widest dtype that travels."""
        kinds = [*(tensor.dtype for tensors in outgoing for tensor in tensors),
                 *(dtype for forms in incoming for _, dtype in forms)]
        widest = max(kinds, key=lambda kind: kind.itemsize, default=torch.float32)
        arrived = iter(self.begin_exchange(outgoing, incoming, widest).wait())
        return [[next(arrived) for _ in forms] for forms in incoming]

    def begin_exchange(self, outgoing: Sequence[Sequence[Tensor]], incoming: Sequence[Sequence[Form]],
                       dtype: torch.dtype) -> Pending:
        """One all_to_all of flat buffers."""
        with self._counted():
            leaving = [tensor for tensors in outgoing for tensor in tensors]
            arriving = [form for forms in incoming for form in forms]
            sent = [sum(tensor.numel() for tensor in tensors) for tensors in outgoing]
            received = [sum(shape.numel() for shape, _ in forms) for forms in incoming]
            device = leaving[0].device if leaving else self.device
            packed = torch.empty(sum(sent), dtype=dtype, device=device)
            for place, tensor in zip(packed.split([one.numel() for one in leaving]), leaving, strict=True):
                place.view(tensor.shape).copy_(tensor)
            buffer = torch.empty(sum(received), dtype=dtype, device=device)
            work = distributed.all_to_all_single(buffer, packed, received, sent, group=self.group,
                                                 async_op=True)

        def wait() -> list[Tensor]:
            with self._counted():
                work.wait()
                packed.resize_(0)  # it had to live as long as it travelled
                pieces = buffer.split([shape.numel() for shape, _ in arriving])
                return [piece.view(shape).to(kind)
                        for piece, (shape, kind) in zip(pieces, arriving, strict=True)]

        return Pending(wait)

    def stack(self, values: Tensor) -> Tensor:
        with self._counted():
            found = values.new_empty(self.size, *values.shape)
            distributed.all_gather(list(found.unbind()), values.contiguous(), group=self.group)
            return found

    def broadcast(self, own: Tensor, rows: Sequence[int]) -> Pending:
        """A broadcast from each rank that has rows, all under way at once."""
        with self._counted():
            parts = [own.contiguous() if rank == self.rank else own.new_empty(count, *own.shape[1:])
                     for rank, count in enumerate(rows)]
            works = [distributed.broadcast(part, group_src=rank, group=self.group, async_op=True)
                     for rank, part in enumerate(parts) if part.numel()]

        def wait() -> list[Tensor]:
            with self._counted():
                for work in works:
                    work.wait()
            return parts

        return Pending(wait)

    def gather(self, value: Any) -> list[Any]:
        with self._counted():
            found: list[Any] = [None] * self.size
            distributed.all_gather_object(found, value, group=self.group)
            return found
