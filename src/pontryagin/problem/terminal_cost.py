"""Terminal costs Phi_i(x_N): the loss of each sample at the final state, never averaged.

Any function of the final states and the targets that returns one number a sample will do; these are
the two that most people need.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.problem.dynamics import identity
from pontryagin.problem.ignored import IGNORED


@runtime_checkable
class TerminalCost(Protocol):
    """Phi: one number for each sample, depending on that sample only."""

    def __call__(self, state: Float[Tensor, " sample *state"], target: Tensor) -> Float[Tensor, " sample"]:
        """The cost of each sample."""


@dataclass(frozen=True)
class SquaredError:
    """Phi_i = |readout(x_N^i) - y^i|^2, summed over the components of the prediction.

    The mean over samples is the mean squared error when the prediction is a scalar. readout: a fixed function
    of the final states, (sample, *state) -> (sample, *target); by default the states themselves.
    """

    readout: Callable[[Tensor], Tensor] = identity

    def __call__(self, state: Float[Tensor, " sample *state"], target: Tensor) -> Float[Tensor, " sample"]:
        prediction = self.readout(state)
        if prediction.shape != target.shape:
            raise ValueError(
                f"the prediction has shape {tuple(prediction.shape)}, the target {tuple(target.shape)}")
        square = (prediction - target).square()
        return square.flatten(1).sum(1) if target.ndim > 1 else square


@dataclass(frozen=True)
class CrossEntropy:
    """Phi_i = -log softmax(x_N^i)[y^i], in nats; x_N are logits, y class indices; 0 where y is -100, torch's
    ignore_index.

    A control problem's J is the mean over all samples, also over those. To leave them out, drop them before.
    """

    def __call__(self, state: Float[Tensor, " sample *state"], target: Tensor
                 ) -> Float[Tensor, " sample *position"]:
        """The cross-entropy of each sample, for logits (sample, class, *position) of each position."""
        return torch.nn.functional.cross_entropy(state, target, reduction="none", ignore_index=IGNORED)
