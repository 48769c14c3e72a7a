"""Who maximizes which stage, and who propagates which samples: pure functions, the same on every rank."""

from collections import defaultdict
from collections.abc import Sequence
from math import isfinite

from pontryagin.problem import ProblemError

Owners = tuple[int, ...]
"""The rank that maximizes each stage."""


def assign(costs: Sequence[float], ranks: int) -> Owners:
    """Owners with balanced loads: the most expensive stage first, each to the rank with the least load so
    far.

    The largest load is at most 4/3 - 1/(3 ranks) of the least possible (Graham 1969). Deterministic: ties go
    to the lower stage and the lower rank. Stages of equal cost are handed out in runs, since neighbours share
    states; loads stay the same.
    costs: any unit, finite and >= 0. Raises ProblemError for others and for less than one rank.
    """
    if ranks < 1:
        raise ProblemError(f"expected at least one rank, found {ranks}")
    if not all(isfinite(cost) and cost >= 0 for cost in costs):
        raise ProblemError(f"the costs of stages must be finite and >= 0, found {list(costs)}")
    load, count = [0.0] * ranks, [0] * ranks
    owners: dict[float, list[int]] = defaultdict(list)
    for cost in sorted(costs, reverse=True):
        rank = min(range(ranks), key=lambda rank: (load[rank], count[rank], rank))
        load[rank] += cost
        count[rank] += 1
        owners[cost].append(rank)
    runs = {cost: iter(sorted(found)) for cost, found in owners.items()}
    return tuple(next(runs[cost]) for cost in costs)


def loads(costs: Sequence[float], owners: Owners, ranks: int) -> list[float]:
    """The summed cost of each rank's stages."""
    result = [0.0] * ranks
    for cost, owner in zip(costs, owners, strict=True):
        result[owner] += cost
    return result


def reassign(costs: Sequence[float], owners: Owners, ranks: int, gain: float = 0.1) -> Owners:
    """New owners when they lower the largest load by more than the share `gain`, else the present ones."""
    new = assign(costs, ranks)
    better = max(loads(costs, new, ranks)) < (1 - gain) * max(loads(costs, owners, ranks))
    return new if better else owners


def share(samples: int, rank: int, ranks: int) -> slice:
    """The rows of a batch that a rank propagates: consecutive, numbers differing by at most one."""
    return slice(samples * rank // ranks, samples * (rank + 1) // ranks)
