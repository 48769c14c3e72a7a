"""The length of a step follows the size of its gradients, where these fade.

Steps are free of the gradient's scale: they are divided by a running root mean square of what they would be. Where gradients
fade, because a loss is fitted or a part of a network has fallen silent, that alone would keep the steps at full length, along
what is at last noise or the memory of a gradient. So a step is measured against a longer memory too, the mean over about the
last ninth of all steps: gradients may fall to a quarter of it before the steps become shorter, which no noise of batches does.
"""

from math import frexp, ldexp

import torch
from torch import Tensor

_WINDOW = 8.0
"""eta of the mean over about the last 1 / (eta + 1) of all steps, as that of the averages of the controls."""
_FALL = 0.25
"""What part of the longer mean's root the gradients may fall to at full length."""

_MILD = 1e-10, 1e10
"""Largest entries of gradients whose squares, and what is made of them, are float32 with room to spare."""
_LARGEST = 126
"""Exponent of a unit: its inverse is a float32 too."""


def extended(like: Tensor) -> torch.dtype:
    """A dtype for squares of gradients: their range is twice that of gradients."""
    return torch.float64 if like.device.type != "mps" else torch.float32


def long_mean(known: Tensor, square: Tensor, steps: Tensor) -> Tensor:
    """The mean over about the last ninth of `steps` steps, this one included. steps: of each group, shaped as the squares are."""
    return known + (square - known) * ((_WINDOW + 1) / (steps + _WINDOW))


def floored(square: Tensor, long: Tensor) -> Tensor:
    """The running mean square that a step is divided by the root of: no less than so much of the longer mean."""
    return torch.maximum(square, _FALL**2 * long)


def is_mild(largest: float) -> bool:
    """Whether a gradient can be squared as it is."""
    return largest == 0 or _MILD[0] < largest < _MILD[1]


def unit(largest: float) -> float:
    """The power of two next above the largest entry of a gradient, 1 for zero: dividing by it is exact, and squares of what is
    left stay in range."""
    exponent = frexp(largest)[1]
    return ldexp(1.0, max(-_LARGEST, min(exponent, _LARGEST))) if largest > 0 else 1.0
