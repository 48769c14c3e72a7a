"""Tensors that lie in parts on several ranks, brought whole to their owners and sent back as parts.

A tensor is cut along one axis as torch.chunk cuts it, and as fully_shard does: rank r of n has the entries
from r c to (r + 1) c, c = ceil(length / n), so that the last ranks may have fewer, or none; or it lies whole
on every rank. Each part travels once, straight to the owner or from it, all tensors of a call together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from pontryagin.distributed.communicator import Communicator, Pending


@dataclass(frozen=True)
class Place:
    """Where a tensor lies. shape, dtype: of the whole. axis: along which it is cut; None where every rank has
    all of it. owner: the rank that is to have it whole."""

    shape: torch.Size
    dtype: torch.dtype
    axis: int | None
    owner: int

    def cut(self, rank: int, ranks: int) -> slice:
        """The entries along the axis that a rank has."""
        if self.axis is None:
            return slice(None)
        length = self.shape[self.axis]
        each = -(-length // ranks)
        return slice(min(rank * each, length), min((rank + 1) * each, length))

    def part(self, whole: Tensor, rank: int, ranks: int) -> Tensor:
        """What a rank has of it: a view."""
        return whole if self.axis is None else whole[(slice(None),) * self.axis + (self.cut(rank, ranks),)]

    def part_shape(self, rank: int, ranks: int) -> torch.Size:
        """Its shape."""
        cut = self.cut(rank, ranks)
        return self.shape if self.axis is None else torch.Size(
            (*self.shape[:self.axis], cut.stop - cut.start, *self.shape[self.axis + 1:]))


def to_owners(ranks: Communicator, places: Sequence[Place], parts: Sequence[Tensor]) -> Pending:
    """Bring tensors whole to their owners; gives those of this rank, in order. What lies whole on every rank
    does not travel."""
    me, every = ranks.rank, range(ranks.size)
    cut = [(place, part) for place, part in zip(places, parts, strict=True) if place.axis is not None]
    outgoing = [[part for place, part in cut if place.owner == rank] for rank in every]
    own = [place for place, _ in cut if place.owner == me]
    incoming = [[(place.part_shape(rank, ranks.size), place.dtype) for place in own] for rank in every]
    arriving = ranks.begin_exchange(outgoing, incoming, _widest([place for place, _ in cut])) if cut else None

    def wait() -> list[Tensor]:
        found = [] if arriving is None else arriving.wait()
        pieces = [iter(found[rank * len(own):(rank + 1) * len(own)]) for rank in every]
        return [part if place.axis is None else torch.cat([next(piece) for piece in pieces], place.axis)
                for place, part in zip(places, parts, strict=True) if place.owner == me]

    return Pending(wait)


def from_owners(ranks: Communicator, places: Sequence[Place], wholes: Sequence[Tensor]) -> Pending:
    """Send tensors from their owners; gives this rank's part of each. wholes: of those that it owns, in
    order."""
    me, every = ranks.rank, range(ranks.size)
    own = [place for place in places if place.owner == me]
    outgoing = [[place.part(whole, rank, ranks.size) for place, whole in zip(own, wholes, strict=True)]
                for rank in every]
    incoming = [[(place.part_shape(me, ranks.size), place.dtype) for place in places if place.owner == rank]
                for rank in every]
    arriving = ranks.begin_exchange(outgoing, incoming, _widest(places))

    def wait() -> list[Tensor]:
        found, counts = arriving.wait(), [len(forms) for forms in incoming]
        begins = [sum(counts[:rank]) for rank in every]
        pieces = [iter(found[begin:begin + count]) for begin, count in zip(begins, counts, strict=True)]
        return [next(pieces[place.owner]) for place in places]

    return Pending(wait)


def _widest(places: Sequence[Place]) -> torch.dtype:
    """The dtype that all travel in, the same on every rank."""
    return reduce(torch.promote_types, (place.dtype for place in places), places[0].dtype if places
                  else torch.float32)


def buckets(sizes: Sequence[int], limit: int) -> list[range]:
    """Runs of consecutive tensors of about so many numbers together, at least one in each."""
    found, begin, total = [], 0, 0
    for number, size in enumerate(sizes):
        if number > begin and total + size > limit:
            found.append(range(begin, number))
            begin, total = number, 0
        total += size
    return [*found, range(begin, len(sizes))] if sizes else []

