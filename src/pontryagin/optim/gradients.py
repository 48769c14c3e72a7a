"""Sizes of gradients of any types, read in one go."""

from collections.abc import Sequence

import torch
from torch import Tensor


def largest_entries(gradients: Sequence[Tensor]) -> list[float]:
    """The largest absolute value of each gradient, 0 of an empty one; NaN or infinite where it holds such a value."""
    values = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    filled = [n for n, value in enumerate(values) if value.numel()]
    sizes = [0.0] * len(values)
    if filled:
        norms = torch._foreach_norm([values[n] for n in filled], float("inf"))
        alike = len({(norm.dtype, norm.device) for norm in norms}) == 1
        joint = torch.stack(norms if alike else [norm.to(norms[0].device, torch.float64) for norm in norms])
        for n, size in zip(filled, joint.tolist(), strict=True):
            sizes[n] = size
    return sizes
