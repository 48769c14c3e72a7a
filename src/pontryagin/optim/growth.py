"""How the inputs of a stage grow between two refreshes of their moments.

The argmax of a stage takes its inputs to be those whose moments it knows. Where all stages of a deep network
move at once, inputs can vary several times as much within few steps, and a change measured in the old moments
then moves the outputs by
several times what was meant: the growth feeds itself. So mean and variance of the inputs are glanced at in
most steps, and the known second moment is multiplied by the growth of its trace.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.distributed.reductions import is_alone, summed

_STALE = 1.25
"""The known variance never lags behind the last batch's by more than this factor."""
_TOO_LARGE, _FALL = 16.0, 4.0
"""What is so many times as large as the last batch's, as after an outlier, falls by this factor at once."""
_WEIGHT = 0.15
"""Of a batch in what is known."""
Number = Float[Tensor, " group"]


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean of some rows, (group, input), and the mean of their squared distances from it, (group)."""

    mean: Float[Tensor, "group input"]
    variance: Number
    count: float
    """Of the rows, as far as it is known."""


class Glance:
    """The spread of the rows seen since the last take()."""

    def __init__(self) -> None:
        self._spread: Spread | None = None

    @torch.no_grad()
    def add(self, rows: Float[Tensor, "group position input"]) -> None:
        """More rows, in float32 or wider."""
        if rows.shape[1]:
            variance, mean = torch.var_mean(rows.to(torch.promote_types(rows.dtype, torch.float32)), 1,
                                            correction=0)
            seen = Spread(mean, variance.sum(1), float(rows.shape[1]))
            self._spread = seen if self._spread is None else _joint(self._spread, seen)

    def take(self) -> Spread | None:
        """The spread; starts anew. None without rows."""
        taken, self._spread = self._spread, None
        return taken


def _joint(one: Spread, other: Spread) -> Spread:
    """Of the rows of both."""
    count = one.count + other.count
    weight, offset = other.count / count, other.mean - one.mean
    variance = torch.lerp(one.variance, other.variance,
                          weight) + weight * (1 - weight) * offset.square().sum(1)
    return Spread(one.mean + weight * offset, variance, count)


def spreads_over_processes(own: Sequence[Spread | None], like: Sequence[Tensor]) -> list[Spread | None]:
    """Over the rows of all processes, in one exchange; NaN where no process has any. like: of the shapes of
    the means.

    Every process has to call it, with or without rows.
    """
    if is_alone():
        return list(own)
    device = like[0].device
    joint = summed(torch.cat([_packed(spread, mean).to(device)
                              for spread, mean in zip(own, like, strict=True)]))
    found: list[Spread | None] = []
    for part, mean in zip(joint.split([mean.numel() + mean.shape[0] + 1 for mean in like]), like,
                          strict=True):
        sums, squares = (part[:-1] / part[-1]).split([mean.numel(), mean.shape[0]])
        centre = sums.view_as(mean)
        found.append(Spread(centre.to(mean), (squares - centre.square().sum(1)).clamp_min(0).to(mean),
                            torch.nan))
    return found


def follow(trace: Number, mean: Float[Tensor, "group input"], spreads: Sequence[Spread | None],
           sizes: Sequence[int], centred: bool) -> Number:
    """The factor by which known second moments of that trace grow with what was seen of a batch. The mean
    changes in place.

    spreads: of stages with so many groups, in their order; None or NaN where nothing was seen. centred:
    whether a bias absorbs the mean; else moments are about 0.
    """
    unseen = mean.new_full((1, 1), torch.nan)
    seen = list(zip(spreads, sizes, strict=True))
    found = torch.cat([unseen[0].expand(size) if spread is None else spread.variance.to(mean)
                       for spread, size in seen])
    means = torch.cat([unseen.expand(size, mean.shape[1]) if spread is None else spread.mean.to(mean)
                       for spread, size in seen])
    offset = means - mean if centred else means
    found = found + (1 - _WEIGHT if centred else 1.0) * offset.square().sum(1)
    known = torch.minimum(torch.maximum(trace, found / _STALE),
                          torch.maximum(_TOO_LARGE * found, trace / _FALL))
    factor = torch.lerp(known, found, _WEIGHT) / trace
    usable = factor.isfinite()
    if centred:
        mean.add_(torch.where(usable.unsqueeze(1), offset, 0.0), alpha=_WEIGHT)
    return torch.where(usable, factor, 1.0)


def lag(known: Number, found: Number) -> Number:
    """What a known trace must be multiplied by to lag behind that of a new batch by no more than the
    factor."""
    factor = (found / _STALE / known).clamp_min(1)
    return torch.where(factor.isfinite(), factor, 1.0)


def _packed(spread: Spread | None, mean: Tensor) -> Tensor:
    """Sums over rows of x, of |x|^2 and their number, in float64 where there is one: the mean may be
    large."""
    wide = torch.float64 if mean.device.type != "mps" else torch.float32
    if spread is None:
        return mean.new_zeros(mean.numel() + mean.shape[0] + 1, dtype=wide)
    centre, count = spread.mean.to(wide), spread.count
    squares = spread.variance.to(wide) + centre.square().sum(1)
    return torch.cat([centre.flatten() * count, squares * count, centre.new_full((1,), count)])
