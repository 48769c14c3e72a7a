"""AdamW for the parameters that belong to no affine stage."""

import torch
from torch import Tensor

from pontryagin.optim.precision import wide

_BETAS, _EPS = (0.9, 0.99), 1e-8


def initial(parameter: Tensor) -> dict[str, Tensor]:
    """Zero moments and step count, in float32 at least."""
    zeros = torch.zeros_like(parameter, dtype=wide(parameter.dtype), memory_format=torch.preserve_format)
    return {"first": zeros, "second": zeros.clone(), "updates": torch.zeros((), dtype=torch.float32)}


def direction(state: dict[str, Tensor], gradient: Tensor) -> Tensor:
    """Minus the bias-corrected first moment over the root of the second. (Kingma and Ba 2015; Loshchilov and Hutter 2019.)"""
    gradient = (gradient.to_dense() if gradient.is_sparse else gradient).to(state["first"].dtype)
    state["updates"] += 1
    count = state["updates"].item()
    state["first"].lerp_(gradient, 1 - _BETAS[0])
    state["second"].mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
    root = (state["second"] / (1 - _BETAS[1]**count)).sqrt_().add_(_EPS)
    return -(state["first"] / (1 - _BETAS[0]**count)) / root
