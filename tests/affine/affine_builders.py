"""How the tests of affine stages compare numbers."""

import torch
from torch import Tensor


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Equal within a tolerance relative to the largest number, which counts as 1e-5 at least."""
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    scale = max(expected.abs().max().item(), 1e-5)
    difference = (found - expected).abs().max().item()
    assert difference <= tolerance * scale, (difference, scale)
