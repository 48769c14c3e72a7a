"""Networks of fully connected layers; each child is a stage."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from pontryagin.run.errors import ExperimentError
from pontryagin.run.models.start import normal, positive


def mlp(shape: Sequence[int], outputs: int, *, width: int = 128, depth: int = 10) -> nn.Sequential:
    """Samples of `shape`, flattened, through `depth` hidden layers with ReLU to `outputs` numbers; He
    initialization."""
    positive(outputs=outputs, width=width, depth=depth)
    inputs = [prod(shape), *[width] * (depth - 1)]
    hidden = [nn.Sequential(nn.Linear(before, width), nn.ReLU()) for before in inputs]
    hidden[0].insert(0, nn.Flatten())
    model = nn.Sequential(*hidden, nn.Linear(width, outputs))
    normal(model, 2.0)
    return model


def normalized_mlp(shape: Sequence[int], outputs: int, *, width: int = 2048, depth: int = 3,
                   random_normalization: bool = False) -> nn.Sequential:
    """The network of Li and Hao (ICML 2018): samples of `shape`, flattened, through `depth` hidden layers
    Linear, BatchNorm, ReLU, to Linear, BatchNorm; no biases.

    Weights uniform in +- fan_in^-1/2, for a method to round. random_normalization: scales and shifts of the
    normalizations N(0, 1) cut at 2, as in the authors' released code, in the place of 1 and 0; eps is theirs,
    1e-4.
    """
    positive(outputs=outputs, width=width, depth=depth)
    layers = [nn.Sequential(nn.Linear(before, after, bias=False), _normalization(after, random_normalization),
                            nn.ReLU())
              for before, after in pairwise([prod(shape), *[width] * depth, outputs])]
    layers[0].insert(0, nn.Flatten())
    del layers[-1][-1]
    return nn.Sequential(*layers)


def _normalization(features: int, random: bool) -> nn.BatchNorm1d:
    made = nn.BatchNorm1d(features, eps=1e-4)
    for parameter in (made.weight, made.bias) if random else ():
        nn.init.trunc_normal_(parameter)
    return made


def autoencoder(shape: Sequence[int], *, widths: Sequence[int] | None = None) -> nn.Sequential:
    """Samples of `shape`, flattened, through layers of `widths` and back the same way: tanh, linear code,
    logits out.

    By default 1000, 500, 250, 30 as in Hinton and Salakhutdinov (2006), or 64, 32, 8 for fewer than 256
    inputs.
    """
    inputs = prod(shape)
    chosen = tuple(widths) if widths is not None else ((1000, 500, 250, 30) if inputs >= 256 else (64, 32, 8))
    if not chosen:
        raise ExperimentError("autoencoder: expected at least one width, that of the code")
    positive(inputs=inputs, **{f"widths[{number}]": width for number, width in enumerate(chosen)})
    sizes = (inputs, *chosen, *reversed(chosen[:-1]), inputs)
    linear = (len(chosen) - 1, len(sizes) - 2)
    blocks = [nn.Sequential(nn.Linear(before, after), *([] if number in linear else [nn.Tanh()]))
              for number, (before, after) in enumerate(pairwise(sizes))]
    blocks[0].insert(0, nn.Flatten())
    model = nn.Sequential(*blocks)
    normal(model)
    return model
