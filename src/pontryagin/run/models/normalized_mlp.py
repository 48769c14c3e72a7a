"""The fully connected network of Li and Hao (ICML 2018): no biases, normalization after every layer."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from pontryagin.run.models.sizes import positive


def normalized_mlp(shape: Sequence[int], outputs: int, *, width: int = 2048, depth: int = 3,
                   random_normalization: bool = False) -> nn.Sequential:
    """Samples of `shape`, flattened, through `depth` hidden layers Linear, BatchNorm, ReLU, to Linear,
    BatchNorm.

    Weights uniform in +- fan_in^-1/2, for a method to round. random_normalization: scales and shifts of the
    normalizations N(0, 1) cut at 2, as in the authors' released code, in the place of 1 and 0; eps is theirs,
    1e-4. Each child is a stage.
    """
    positive(outputs=outputs, width=width, depth=depth)
    sizes = [prod(shape), *[width] * depth, outputs]
    layers = [nn.Sequential(nn.Linear(before, after, bias=False), _normalization(after, random_normalization),
                            nn.ReLU())
              for before, after in pairwise(sizes)]
    layers[0].insert(0, nn.Flatten())
    del layers[-1][-1]
    return nn.Sequential(*layers)


def _normalization(features: int, random: bool) -> nn.BatchNorm1d:
    made = nn.BatchNorm1d(features, eps=1e-4)
    for parameter in (made.weight, made.bias) if random else ():
        nn.init.trunc_normal_(parameter)
    return made
