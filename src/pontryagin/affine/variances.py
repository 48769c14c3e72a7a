"""How the inputs of a stage grow between two refreshes of their moments.

The argmax of a stage takes its inputs to be those whose moments it knows. Where all stages of a deep network
move at once, inputs can vary several times as much within few steps, and a change measured in the old moments
then moves the outputs by
several times what was meant: the growth feeds itself. So mean and variance of the inputs are probed in
most steps, and the known second moment is multiplied by the growth of its trace.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_STALE = 1.25
"""The known variance never lags behind the last batch's by more than this factor."""
_TOO_LARGE, _FALL = 16.0, 4.0
"""What is so many times as large as the last batch's, as after an outlier, falls by this factor at once."""
_WEIGHT = 0.15
"""Of a batch in what is known."""
Number = Float[Tensor, " group"]


@dataclass(frozen=True, eq=False)
class MeanVariance:
    """Mean and variance of each entry of some rows, (group, input); count: of the rows, as far as it is
    known."""

    mean: Float[Tensor, "group input"]
    variance: Float[Tensor, "group input"]
    count: float

    @property
    def trace(self) -> Number:
        """Mean squared distance of a row from the mean."""
        return self.variance.sum(1)

    def joint(self, other: "MeanVariance") -> "MeanVariance":
        """Of the rows of both."""
        count = self.count + other.count
        weight, offset = other.count / count, other.mean - self.mean
        variance = torch.lerp(self.variance, other.variance, weight) + weight * (1 - weight) * offset.square()
        return MeanVariance(self.mean + weight * offset, variance, count)


class VarianceProbe:
    """Mean and variance of the rows seen since the last take(): what a look costs that factorizes nothing."""

    def __init__(self) -> None:
        self._seen: MeanVariance | None = None

    def add(self, rows: Float[Tensor, "group position input"]) -> None:
        """More rows, in float32 or wider."""
        if rows.shape[1]:
            variance, mean = self._of(rows.detach().to(torch.promote_types(rows.dtype, torch.float32)))
            seen = MeanVariance(mean, variance, float(rows.shape[1]))
            self._seen = seen if self._seen is None else self._seen.joint(seen)

    def take(self) -> MeanVariance | None:
        """What was seen; starts anew. None without rows."""
        taken, self._seen = self._seen, None
        return taken

    def _of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Variance and mean."""
        return torch.var_mean(rows, 1, correction=0)


def growth(trace: Number, mean: Float[Tensor, "group input"], found: Sequence[MeanVariance | None],
           sizes: Sequence[int], centred: bool) -> Number:
    """The factor by which known second moments of that trace grow with what was seen of a batch. The mean
    changes in place.

    found: of stages with so many groups, in their order; None or NaN where nothing was seen. centred: whether
    a bias absorbs the mean; else moments are about 0.
    """
    nothing = mean.new_full((1, mean.shape[1]), torch.nan)
    seen = [MeanVariance(nothing, nothing, 0.0) if one is None else one for one in found]
    traces, means = (torch.cat([value.expand(size, -1) for value, size in zip(each, sizes, strict=True)])
                     for each in ([one.variance for one in seen], [one.mean for one in seen]))
    traces, means = traces.sum(1).to(mean), means.to(mean)
    offset = means - mean if centred else means
    traces = traces + (1 - _WEIGHT if centred else 1.0) * offset.square().sum(1)
    known = torch.minimum(torch.maximum(trace, traces / _STALE),
                          torch.maximum(_TOO_LARGE * traces, trace / _FALL))
    factor = torch.lerp(known, traces, _WEIGHT) / trace
    usable = factor.isfinite()
    if centred:
        mean.add_(torch.where(usable.unsqueeze(1), offset, 0.0), alpha=_WEIGHT)
    return torch.where(usable, factor, 1.0)


def lag(known: Number, found: Number) -> Number:
    """What a known trace must be multiplied by to lag behind that of a new batch by no more than the
    factor."""
    factor = (found / _STALE / known).clamp_min(1)
    return torch.where(factor.isfinite(), factor, 1.0)
