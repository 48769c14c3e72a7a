"""Stages that are affine in their own control, the ones whose Hamiltonian is maximized in closed form."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class AffineForm:
    """Says that g(x, theta) = base(x) + embed(W inputs(x) + b), theta = (W, b) with W of (output, input).

    `inputs` maps states to the features that W multiplies, one row for every position at which it is applied.
    `adjoint` is the transpose of `embed`, which must put the outputs at places of their own: it cuts from a
    costate p the part u at the outputs, in the same rows.

    Without `reaching`, inputs must be a relabelling of components (identity, flatten), for then the costate
    changes by W^T u. A component that enters several rows (the patches of a convolution) needs it: input
    features are channel * tap, and reaching(costate, state) gives for every place of x the u that reach it,
    output * tap, zero where there is none. The costate at a place then changes by dW, read as (channel,
    output * tap), times these.
    """

    input_features: int
    output_features: int
    inputs: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    bias: bool = True
    taps: int = 1
    reaching: Callable[[Tensor, Tensor], Tensor] | None = None

    def matrices(self, control: Float[Tensor, "*stage control"]) -> tuple[
            Float[Tensor, "*stage output input"], Float[Tensor, "*stage output"]]:
        """W and b as views of the control vector: W by rows, then b; b = 0 when the stage has no bias."""
        entries = self.output_features * self.input_features
        weight = control[..., :entries].unflatten(-1, (self.output_features, self.input_features))
        return weight, control[..., entries:] if self.bias else weight.new_zeros(weight.shape[:-1])

    def by_channel(self, weight: Float[Tensor, "*stage output input"]) -> Float[Tensor,
                                                                                "*stage channel reach"]:
        """W as (channel, output * tap): W^T where there is one tap."""
        return weight.unflatten(-1, (-1, self.taps)).transpose(-3, -2).flatten(-2)

    def by_output(self, weight: Float[Tensor, "*stage channel reach"]) -> Float[Tensor,
                                                                                "*stage output input"]:
        """The inverse of by_channel."""
        return weight.unflatten(-1, (-1, self.taps)).transpose(-3, -2).flatten(-2)

    def control(self, weight: Float[Tensor, "*stage output input"], bias: Float[Tensor, "*stage output"]
                ) -> Float[Tensor, "*stage control"]:
        """The control vector that W and b are the views of."""
        return torch.cat([weight.flatten(-2), bias], -1) if self.bias else weight.flatten(-2)
