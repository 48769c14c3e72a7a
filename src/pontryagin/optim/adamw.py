"""AdamW for the parameters that are maximized in no affine stage."""

import torch
from torch import Tensor

from pontryagin.optim.fading import unit
from pontryagin.optim.gradients import dense
from pontryagin.optim.state import AdamWState, Entries

_BETAS, _EPS = (0.9, 0.99), 1e-8
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


def direction(state: AdamWState, gradient: Tensor, largest: float) -> tuple[Tensor, Entries]:
    """Minus the bias-corrected first moment over the root of the second, and what is new in the state.
    (Kingma and Ba 2015; Loshchilov and Hutter 2019.) largest: the gradient's largest entry. Nothing is
    changed in place."""
    gradient = dense(gradient)
    gradient = (torch.view_as_real(gradient) if gradient.is_complex() else gradient).to(state.first.dtype)
    before, now = float(state.unit), _unit(largest, float(state.unit))
    first, second = state.first, state.second
    if now != before:
        first, second = first * (before / now), second * (before / now) ** 2
    if now != 1:
        gradient = gradient / now
    count = state.updates + 1
    first = torch.lerp(first, gradient, 1 - _BETAS[0])
    second = (second * _BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
    root = (second / (1 - _BETAS[1] ** count.item())).sqrt_().add_(_EPS / now)
    new = {"first": first, "second": second, "updates": count, "unit": torch.full_like(state.unit, now)}
    return (first / (1 - _BETAS[0] ** count.item())).neg_().div_(root), new


def _unit(largest: float, before: float) -> float:
    """What the moments are kept in units of: 1, unless a gradient is so large that its square would not be
    finite."""
    return before if largest <= _LARGE * before else unit(largest)
