"""Which rows of a batch enter the moments: some of them, spread over all, at irregular distances.

A fixed stride would take one and the same position of every sequence where samples lie flattened, (sample,
position) as rows, and moments would be those of that position alone. So the rows are cut into as many equal
strata as are kept, and each stratum gives the row at a random place in it. The places are drawn once, from a
seed: they are the same in every run and on every process.
"""

from functools import lru_cache

import torch
from torch import Tensor

_PLACES = torch.rand(1 << 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def chosen(count: int, kept: int) -> Tensor:
    """Numbers of `kept` of `count` rows, ascending: one at random of each stratum of count / kept rows."""
    places = _PLACES[torch.arange(kept) % len(_PLACES)]
    return ((torch.arange(kept, dtype=torch.float64) + places) * (count / kept)).long().clamp_max(count - 1)


def thinned(rows: Tensor, kept: int) -> Tensor:
    """So many of the entries along the first axis: a copy; all of them, the same tensor, where there are no
    more."""
    if kept >= len(rows):
        return rows
    return rows.index_select(0, _chosen_on(len(rows), kept, rows.device))


@lru_cache(64)
def _chosen_on(count: int, kept: int, device: torch.device) -> Tensor:
    """Once: a copy to a device waits for it."""
    return chosen(count, kept).to(device)
