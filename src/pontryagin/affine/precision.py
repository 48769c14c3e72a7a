"""The metric needs full precision, also where a training loop runs everything under autocast."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast inside: products keep the dtype of their factors."""
    return torch.autocast(device.type,
                          enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def coarse_products(device: torch.device) -> AbstractContextManager[object]:
    """Products of float32 in TF32 inside, on a CUDA device, whatever the user has set: for what needs three
    digits."""
    return _in_tf32() if device.type == "cuda" else nullcontext()


@contextmanager
def _in_tf32() -> Iterator[None]:
    backend = torch.backends.cuda.matmul
    name, value = ("fp32_precision", "tf32") if hasattr(backend, "fp32_precision") else ("allow_tf32", True)
    before = getattr(backend, name)
    setattr(backend, name, value)
    try:
        yield
    finally:
        setattr(backend, name, before)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the running state of a parameter: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def extended(like: torch.Tensor) -> torch.dtype:
    """For squares of gradients, whose range is twice that of gradients, and for factorizations of moments,
    whose
    small eigenvalues are lost in float32: float64, where the device has it."""
    return torch.float64 if like.device.type != "mps" else torch.float32
