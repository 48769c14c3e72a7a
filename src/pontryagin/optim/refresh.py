"""How the moments of a batch enter the states of all stages that saw it: what is elementwise in a few calls.

A call costs more than what it does to a small stage, and there are hundreds of stages.
"""

from collections.abc import Hashable, Sequence
from math import inf, isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from pontryagin.affine import Factor, Moments
from pontryagin.affine.variances import lag
from pontryagin.optim.directions import levelled, turned_along
from pontryagin.optim.numbers import read
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.state import StageState


class Entering(NamedTuple):
    """A stage, its state, the moments of the batch as they enter, and the weight that they get."""

    stage: AffineStage
    state: StageState
    moments: Moments
    weight: float


def are_finite(each: Sequence[Moments]) -> list[bool]:
    """Whether mean, second moment and trace are, of each."""
    if not each:
        return []
    largest = read(torch._foreach_norm([part for one in each for part in (one.mean, one.product, one.trace)],
                                       inf))
    return [all(map(isfinite, largest[n:n + 3])) for n in range(0, len(largest), 3)]


def absorb(entering: Sequence[Entering]) -> list[tuple[AffineStage, StageState, Moments]]:
    """Take in the moments; returns what is to be factorized for keep()."""
    _grow([one for one in entering if not one.stage.map.one_hot])
    by_weight: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
    for stage, state, moments, weight in entering:
        known, new = by_weight.setdefault(weight, ([], []))
        known.append(state.mean)
        new.append(moments.mean)
        if stage.map.one_hot or stage.is_exact:
            known.append(state.moment)
            new.append(moments.product)
    for weight, (known, new) in by_weight.items():
        torch._foreach_lerp_(known, new, weight)
    return [(stage, state, stage.to_factorize(state, moments, weight))
            for stage, state, moments, weight in entering if not stage.map.one_hot]


def _grow(entering: Sequence[Entering]) -> None:
    """No known second moment lags behind that of the batch."""
    kinds: dict[Hashable, list[Entering]] = {}
    for one in entering:
        basis = one.state.basis
        kinds.setdefault((basis.shape[1:], basis.dtype, basis.device), []).append(one)
    for alike in kinds.values():
        values, tails, traces = (torch.cat(each) for each in zip(*(
            (one.state.values, one.state.tail, one.moments.trace) for one in alike), strict=True))
        factor = lag(Factor(alike[0].state.basis, values, tails).trace, traces)
        parts = factor.split([one.stage.groups for one in alike])
        known = [one.state.entries[name] for name in ("moment", "values", "tail") for one in alike
                 if name in one.state]
        factors = [part.view(-1, *[1] * ndim) for name, ndim in (("moment", 2), ("values", 1), ("tail", 0))
                   for one, part in zip(alike, parts, strict=True) if name in one.state]
        torch._foreach_mul_(known, factors)


def keep(found: Sequence[tuple[AffineStage, StageState, Factor]]) -> None:
    """In place: groups hold the same tensors. What is known of directions turns along. Less variance than the
    rounding of the mean is no information."""
    if not found:
        return
    turning = [(state, turned_along(state.along_inputs, state.basis.mT @ factor.basis))
               for stage, state, factor in found if stage.is_exact and "along_inputs" in state]
    means = [state.mean / state.input_unit if stage.is_exact else state.mean for stage, state, _ in found]
    rounding = [torch.finfo(mean.dtype).eps * mean.square().mean(1) for mean in means]
    torch._foreach_copy_([state.basis for _, state, _ in found], [factor.basis for *_, factor in found])
    torch._foreach_copy_(
        [value for _, state, _ in found for value in (state.values, state.tail)],
        torch._foreach_maximum([value for *_, factor in found for value in (factor.values, factor.tail)],
                               [value for one in rounding for value in (one.unsqueeze(1), one)]))
    for state, energies in turning:
        state.along_inputs.copy_(levelled(energies, state.values))
