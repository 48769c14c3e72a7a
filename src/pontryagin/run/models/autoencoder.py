"""A deep autoencoder."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from pontryagin.run.errors import ExperimentError
from pontryagin.run.models.initialization import normal
from pontryagin.run.models.sizes import positive


def autoencoder(shape: Sequence[int], *, widths: Sequence[int] | None = None) -> nn.Sequential:
    """Samples of `shape`, flattened, through layers of `widths` and back the same way: tanh, linear code,
    logits out.

    By default 1000, 500, 250, 30 as in Hinton and Salakhutdinov (2006), or 64, 32, 8 for fewer than 256
    inputs. Each child is a stage.
    """
    inputs = prod(shape)
    chosen = tuple(widths) if widths is not None else ((1000, 500, 250, 30) if inputs >= 256 else (64, 32, 8))
    if not chosen:
        raise ExperimentError("autoencoder: expected at least one width, that of the code")
    positive(inputs=inputs, **{f"widths[{number}]": width for number, width in enumerate(chosen)})
    sizes = (inputs, *chosen, *reversed(chosen[:-1]), inputs)
    blocks = []
    for number, (before, after) in enumerate(pairwise(sizes)):
        linear = number in (len(chosen) - 1, len(sizes) - 2)
        blocks.append(nn.Sequential(nn.Linear(before, after), *([] if linear else [nn.Tanh()])))
    blocks[0].insert(0, nn.Flatten())
    model = nn.Sequential(*blocks)
    normal(model)
    return model
