"""AdamW for the parameters that are maximized in no affine stage."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pontryagin.optim.fading import unit
from pontryagin.optim.gradients import dense
from pontryagin.optim.state import AdamWState, Entries

BETAS, EPS = (0.9, 0.99), 1e-8
"""The second as in recipes of language models: it forgets an early outlier within a run of a thousand
steps."""
_LARGE = 2.0**50
"""Gradients beyond this are kept in units of their size: the square of a float32 ends at 2^127."""


def current(entries: Entries, parameter: Tensor) -> AdamWState:
    """The state of a parameter: zeros where there is none, and in its own dtype where that has changed."""
    device = parameter.device
    dtype = AdamWState.layout(parameter)["first"][1]
    known = AdamWState(entries)
    if "first" not in known or known.first.device != device:
        real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
        zeros = torch.zeros_like(real, dtype=dtype, memory_format=torch.preserve_format)
        return AdamWState({"first": zeros, "second": zeros.clone(),
                           "updates": torch.zeros((), dtype=torch.float32),
                           "unit": torch.ones((), dtype=torch.float32)})
    if known.first.dtype != dtype:
        return AdamWState({**entries, "first": known.first.to(dtype), "second": known.second.to(dtype)})
    return known


def directions(states: Sequence[AdamWState], gradients: Sequence[Tensor], largest: Sequence[float]
               ) -> tuple[list[Tensor], list[Entries]]:
    """Of each parameter minus the bias-corrected first moment over the root of the second, and what is new in
    its state. (Kingma and Ba 2015; Loshchilov and Hutter 2019.) largest: the gradients' largest entries.
    Nothing is changed in place."""
    if not states:
        return [], []
    gradients = [(torch.view_as_real(one) if one.is_complex() else one).to(state.first.dtype)
                 for one, state in zip(map(dense, gradients), states, strict=True)]
    known = [float(state.unit) for state in states]
    units = [_unit(size, before) for size, before in zip(largest, known, strict=True)]
    counts = [float(state.updates) + 1 for state in states]
    first, second = [state.first for state in states], [state.second for state in states]
    if units != known:
        ratios = [before / now for before, now in zip(known, units, strict=True)]
        first = list(torch._foreach_mul(first, ratios))
        second = list(torch._foreach_mul(second, [ratio**2 for ratio in ratios]))
    if any(now != 1 for now in units):
        gradients = list(torch._foreach_div(gradients, units))
    first = list(torch._foreach_lerp(first, gradients, 1 - BETAS[0]))
    second = list(torch._foreach_mul(second, BETAS[1]))
    torch._foreach_addcmul_(second, gradients, gradients, value=1 - BETAS[1])
    roots = torch._foreach_div(second, [1 - BETAS[1]**count for count in counts])
    torch._foreach_sqrt_(roots)
    torch._foreach_add_(roots, [EPS / now for now in units])
    found = torch._foreach_div(first, [BETAS[0]**count - 1 for count in counts])
    torch._foreach_div_(found, roots)
    new = [{"first": one, "second": other, "updates": torch.tensor(count, dtype=torch.float32),
            "unit": torch.tensor(now, dtype=torch.float32)}
           for one, other, count, now in zip(first, second, counts, units, strict=True)]
    return list(found), new


def _unit(largest: float, before: float) -> float:
    """What the moments are kept in units of: 1, unless a gradient is so large that its square would not be
    finite."""
    return before if largest <= _LARGE * before else unit(largest)
