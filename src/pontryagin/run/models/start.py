"""How the ready networks begin: sizes that can be, and random weights."""

from math import sqrt

from torch import nn

from pontryagin.run.errors import ExperimentError


def positive(**sizes: int) -> None:
    """Each must be a whole number of at least 1. Raises ExperimentError that names the first which is not."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ExperimentError(f"{name}: expected a whole number >= 1, found {size!r}")


def normal(model: nn.Module, gain: float = 1.0) -> nn.Module:
    """Weights N(0, gain / fan_in), biases 0, from torch's global generator; gain 1 suits tanh, 2 ReLU."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(module.weight, std=sqrt(gain / module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
