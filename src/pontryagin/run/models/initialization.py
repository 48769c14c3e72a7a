"""Where the weights of the ready networks start."""

from math import sqrt

from torch import nn


def normal(model: nn.Module, gain: float = 1.0) -> nn.Module:
    """Weights N(0, gain / fan_in), biases 0, in place; gain 1 suits tanh, 2 ReLU. From torch's global
    generator."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(module.weight, std=sqrt(gain / module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
