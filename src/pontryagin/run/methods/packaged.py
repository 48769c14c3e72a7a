"""Optimizers of the package pytorch-optimizer."""

from typing import Any

import torch
from torch import nn

from pontryagin.run.errors import need


def packaged(name: str, model: nn.Module, rate: float, **options: Any) -> Any:
    """The optimizer of that name with these options of its own, for all parameters of a model.
    ExperimentError where the package is missing."""
    package = need("pytorch_optimizer", name)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # they flatten gradients by view
    return getattr(package, name)(model.parameters(), lr=rate, **options)
