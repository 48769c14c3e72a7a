"""A plain deep network."""

from collections.abc import Sequence
from math import prod

from torch import nn

from pontryagin.run.models.initialization import normal
from pontryagin.run.models.sizes import positive


def mlp(shape: Sequence[int], outputs: int, *, width: int = 128, depth: int = 10) -> nn.Sequential:
    """Samples of `shape`, flattened, through `depth` hidden layers with ReLU to `outputs` numbers; He
    initialization.

    Each child is a stage.
    """
    positive(outputs=outputs, width=width, depth=depth)
    inputs = [prod(shape), *[width] * (depth - 1)]
    hidden = [nn.Sequential(nn.Linear(before, width), nn.ReLU()) for before in inputs]
    hidden[0].insert(0, nn.Flatten())
    model = nn.Sequential(*hidden, nn.Linear(width, outputs))
    normal(model, 2.0)
    return model
