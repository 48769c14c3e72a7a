"""How the inputs of a stage grow between two refreshes of their moments.

The argmax of a stage takes its inputs to be those whose moments it knows. Where all stages of a deep network move at once,
inputs can vary several times as much within few steps, and a change measured in the old moments then moves the outputs by
several times what was meant: the growth feeds itself. So mean and variance of the inputs are glanced at in most steps, and the
known moments are scaled along.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.optim.moments import Moments

_STALE = 2.0
"""The known variance never lags behind the last batch's by more than this factor."""
State = dict[str, Tensor]
Number = Float[Tensor, " group"]


def follow(state: State, moments: Moments, weight: float) -> None:
    """Take mean and trace of the moments of a batch into those that are known, with this weight. The mean of no bias is 0."""
    known, found = _trace(state), moments.trace + (1 - weight) * (moments.mean - state["mean"]).square().sum(1)
    _scale(state, torch.lerp(torch.maximum(known, found / _STALE), found, weight) / known)
    state["mean"].lerp_(moments.mean, weight)


def catch_up(state: State, moments: Moments) -> None:
    """Before the moments of a batch are blended into those that are known: what these lag behind beyond the factor."""
    known = _trace(state)
    _scale(state, (moments.trace / _STALE / known).clamp_min(1))


def _trace(state: State) -> Number:
    inputs, rank = state["basis"].shape[1:]
    return state["values"].sum(1) + (inputs - rank) * state["tail"]


def _scale(state: State, factor: Number) -> None:
    """A_c times the factor; where that is not finite, nothing is known yet."""
    factor = torch.where(factor.isfinite(), factor, 1.0)
    for name in ("moment", "values", "tail"):
        if name in state:
            state[name].mul_(factor.view(-1, *[1] * (state[name].ndim - 1)))
