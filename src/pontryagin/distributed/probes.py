"""Means and variances of inputs over the processes that train one model together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pontryagin.affine import MeanVariance
from pontryagin.affine.precision import extended
from pontryagin.distributed.reductions import is_alone, summed


def variances_over_processes(own: Sequence[MeanVariance | None], means: Callable[[], Sequence[Tensor]]
                             ) -> list[MeanVariance | None]:
    """Over the rows of all processes, in one exchange; NaN where no process has any. means: tensors of the
    shapes of the means.

    Every process has to call it, with or without rows.
    """
    if is_alone():
        return list(own)
    like = means()
    device = like[0].device
    joint = summed(torch.cat([_packed(one, mean).to(device) for one, mean in zip(own, like, strict=True)]))
    found: list[MeanVariance | None] = []
    for part, mean in zip(joint.split([2 * mean.numel() + 1 for mean in like]), like, strict=True):
        sums, squares = (part[:-1] / part[-1]).view(2, *mean.shape)
        found.append(MeanVariance(sums.to(mean), (squares - sums.square()).clamp_min(0).to(mean),
                                  float(part[-1])))
    return found


def _packed(seen: MeanVariance | None, mean: Tensor) -> Tensor:
    """Sums over rows of x and of x^2, and their number, in float64 where there is one: the mean may be
    large."""
    wide = extended(mean)
    if seen is None:
        return mean.new_zeros(2 * mean.numel() + 1, dtype=wide)
    centre, variance = seen.mean.to(wide), seen.variance.to(wide)
    return torch.cat([centre.flatten() * seen.count, (variance + centre.square()).flatten() * seen.count,
                      centre.new_full((1,), seen.count)])
