"""How far a step may take a weight, beside the weight itself.

A step is measured by what it does to the outputs. Where the inputs of a stage have all but vanished, as deep
in a network that its initialization starves, moving an output by 0.03 would take weights to 1e10 and more,
and all stages do so at once. So a matrix changes in a step by no more than this part of itself, or of the
size 1 / sqrt(inputs) that keeps variances, should it be
smaller: signals that have vanished come back within some steps, each seen by a glance.
"""

import torch
from jaxtyping import Float
from torch import Tensor

REACH = 0.3
"""Binds where inputs vary by less than about a tenth, at lr = 0.03."""


def reach(norms: Float[Tensor, " group"], outputs: int) -> Float[Tensor, " group"]:
    """The largest norm that the change of a matrix of this norm and so many outputs may have."""
    return REACH * norms.clamp_min(outputs**0.5)


def within(norm: Float[Tensor, " group"], limit: Float[Tensor, " group"]) -> Float[Tensor, " group"]:
    """What a step of this norm is multiplied by: 1, less where it goes further than the limit."""
    return torch.where(norm > limit, limit / norm, 1.0)
