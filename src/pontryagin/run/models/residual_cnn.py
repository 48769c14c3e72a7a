"""The residual network of [LCTE] section 5."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pontryagin.run.errors import ExperimentError
from pontryagin.run.models.start import normal, positive


class ResidualStep(nn.Module):
    """x + step_size * tanh(conv3x3 x + b); conv: another step's, by default one of its own."""

    conv: nn.Conv2d

    def __init__(self, channels: int, step_size: float = 0.5, conv: nn.Conv2d | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if conv is None else conv
        self.step_size = step_size

    def forward(self, x: Tensor) -> Tensor:
        return x + self.step_size * torch.tanh(self.conv(x))


def residual_cnn(shape: Sequence[int] = (1, 28, 28), outputs: int = 10, *, layers: int = 7,
                 channels: int = 32, step_size: float = 0.5) -> nn.Sequential:
    """Images (channel, height, width) to `outputs` numbers: two projections, `layers` residual steps, one
    linear layer.

    A projection is a 3x3 convolution, 2x2 max-pooling and tanh; pooling before tanh is the same function as
    after it, and cheaper. The defaults are the paper's. Weights N(0, 1 / fan_in), biases 0; channels last in
    memory. Each child is a stage.
    """
    if len(shape) != 3 or min(shape) < 1 or min(shape[1:]) < 4:
        raise ExperimentError("residual-cnn: expected images of shape (channel, height, width) of at least "
                              f"4x4, found {tuple(shape)}")
    positive(outputs=outputs, layers=layers, channels=channels)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(shape[0], channels, 3, padding=1), nn.MaxPool2d(2), nn.Tanh()),
        nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.MaxPool2d(2), nn.Tanh()),
        *(ResidualStep(channels, step_size) for _ in range(layers)),
        nn.Sequential(nn.Flatten(), nn.Linear(channels * (shape[1] // 4) * (shape[2] // 4), outputs)))
    normal(model)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
