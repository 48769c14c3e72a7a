"""What a step does to all of its numbers, group by group: compiled where it can be, else torch's calls."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pontryagin.optim import compiled
from pontryagin.optim.numbers import Numbers, cat, of
from pontryagin.optim.promise import products


def scale_(changes: Sequence[Tensor], scales: Sequence[Tensor]) -> None:
    """d <- scale d, row by row. changes: (group, output, input) each; scales: (group, output)."""
    for change, scale in zip(changes, scales, strict=True):
        if is_compiled(change):
            compiled.scaled(of(change), of(scale))
        else:
            change.mul_(scale.unsqueeze(2))


def promise_(changes: Sequence[Tensor], scales: Sequence[Tensor], gradients: Sequence[Tensor],
             velocities: Sequence[Tensor]) -> tuple[Numbers, Numbers]:
    """The same, and of each group of all <G, d> and <G, v>."""
    found = [_promised(*each) for each in zip(changes, scales, gradients, velocities, strict=True)]
    return cat([own for own, _ in found]), cat([past for _, past in found])


def _promised(change: Tensor, scale: Tensor, gradient: Tensor, velocity: Tensor) -> tuple[Numbers, Numbers]:
    if all(map(is_compiled, (change, gradient, velocity))):
        sums = np.empty((2, len(change)))
        compiled.promised(of(change), of(scale), of(gradient), of(gradient[:0]), of(velocity), sums)
        return sums[0], sums[1]
    change.mul_(scale.unsqueeze(2))
    return of(products([gradient], [change])), of(products([gradient], [velocity]))


def nesterov_(velocities: Sequence[Tensor], steps: Sequence[Tensor], momentum: float) -> None:
    """v <- m v + (1 - m) d, and d <- m v + (1 - m) d with the new v."""
    if all(map(is_compiled, (*velocities, *steps))):
        for velocity, step in zip(velocities, steps, strict=True):
            own = of(step)
            compiled.nesterov(of(velocity), own, np.array([momentum], own.dtype))
    else:
        torch._foreach_lerp_(list(velocities), list(steps), 1 - momentum)
        torch._foreach_lerp_(list(steps), list(velocities), momentum)


def is_compiled(rows: Tensor) -> bool:
    """Whether its passes are."""
    return compiled.fits(rows) and rows.ndim == 3 and rows.is_contiguous()
