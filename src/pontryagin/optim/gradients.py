"""Sizes of gradients of any types, read in one go: norms, and where these say little the largest entries."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pontryagin.optim import compiled
from pontryagin.optim.numbers import read

_MILD = 1e-5, 1e9
"""Norms whose squares are float32, of gradients whose largest entries may be squared as they are (fading.py):
the largest of 1e10 is at least 1e-5 of the norm."""


def largest_entries(gradients: Sequence[Tensor]) -> list[float]:
    """The largest absolute value of each gradient, 0 of an empty one; NaN or infinite where it holds such a
    value."""
    values = [_real(gradient) for gradient in gradients]
    filled = [n for n, value in enumerate(values) if value.numel()]
    sizes = [0.0] * len(values)
    if filled:
        ends = [end for n in filled for end in torch.aminmax(values[n])]
        alike = len({(end.dtype, end.device) for end in ends}) == 1
        joint = torch.stack(ends if alike
                            else [end.to(ends[0].device, torch.float64) for end in ends]).tolist()
        for n, low, high in zip(filled, joint[::2], joint[1::2], strict=True):
            sizes[n] = low if low != low else max(-low, high)  # NaN in both, should there be one
    return sizes


def sizes(gradients: Sequence[Tensor]) -> list[float]:
    """Of each gradient a number between its largest entry and its norm: 0 where all are 0, NaN or infinite
    where it holds such a value."""
    if not gradients or any(one.is_sparse or not one.numel() for one in gradients):
        return largest_entries(gradients)
    norms = compiled.norms(gradients) or read(torch._foreach_norm(list(gradients)))
    return norms if all(_MILD[0] < norm < _MILD[1] for norm in norms) else largest_entries(gradients)


def dense(gradient: Tensor) -> Tensor:
    """A sparse one as any other."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def _real(gradient: Tensor) -> Tensor:
    """The numbers of a sparse or complex one."""
    value = gradient.coalesce().values() if gradient.is_sparse else gradient
    return torch.view_as_real(value) if value.is_complex() else value
