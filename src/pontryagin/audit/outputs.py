"""What a change of one stage does to the outputs, by their costates, and what that costs.

For an output component k of sample i the costate of the stage, p_k = d out_k / d z, gives out_k's
Hamiltonian: to first order the change dW of the stage moves it by p_k . dW x, summed over positions. So the
whole change of the outputs is known from one pass back for every component, for all stages and all dW at
once, and the terminal cost there is evaluated exactly, not expanded:

    predicted cost = mean_i Phi_i(out_i + delta_i) - Phi_i(out_i),   delta_ik = p_ik . dW x_i

Its first order is -Delta H = -<G, dW>, its second the Gauss-Newton form. Where an activation phi follows z
alone, the stage includes it: p_k is then d out_k / d phi(z), and its factor phi((W + dW) x + b) - phi(W x +
b), nothing of which is expanded. With many components, `directions` in the space of outputs stand for all.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.diagnostics.looking import second_derivatives

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets to the mean over samples."""

MOST = 16
"""Directions in the space of outputs at most: a pass back each."""


def by_sample(outputs: Tensor) -> Float[Tensor, "sample output"]:
    """Outputs of any shape (sample, ...), (sample,) too, with all components of a sample in one axis."""
    return outputs.reshape(len(outputs), -1)


def directions(outputs: Tensor, gradient: Tensor, largest: bool, generator: torch.Generator
               ) -> tuple[Float[Tensor, "direction sample output"], Float[Tensor, " direction"]]:
    """Orthonormal directions v_c for each sample, and factors f_c: delta is then sum_c f_c v_c (v_c . delta).

    All components when they are at most MOST. Otherwise the gradient of the loss, and beside it the largest
    components, or random directions whose factors keep E |delta|^2.
    """
    flat, slope = by_sample(outputs), by_sample(gradient)
    count, size = flat.shape
    if size <= MOST:
        unit = torch.eye(size, dtype=flat.dtype, device=flat.device)
        return unit.unsqueeze(1).expand(-1, count, -1), flat.new_ones(size)
    if largest:
        others = torch.nn.functional.one_hot(flat.topk(MOST - 1, 1).indices, size).to(flat.dtype).mT
        factor = 1.0
    else:
        others = torch.randn(count, size, MOST - 1, generator=generator, dtype=torch.float32).to(flat)
        factor = ((size - 1) / (MOST - 1)) ** 0.5
    basis = torch.linalg.qr(torch.cat([slope.unsqueeze(2), others], 2))[0]
    factors = flat.new_full((MOST,), factor)
    factors[0] = 1.0
    return basis.permute(2, 0, 1), factors


def combined(parts: Sequence[Tensor], basis: Tensor, factors: Tensor) -> Float[Tensor,
                                                                               "sample _ output"]:
    """delta from v_c . delta of every direction, each (sample, change)."""
    return torch.einsum("cnk,cnf->nkf", torch.stack(list(parts)) * factors.to(parts[0])[:, None, None],
                        basis.to(parts[0]))


@torch.no_grad()
def costs(loss: Loss, outputs: Tensor, targets: Tensor,
          deltas: Float[Tensor, "sample _ output"]) -> list[float]:
    """Phi(out + delta) - Phi(out) of every change."""
    base = loss(outputs, targets).double()
    return [(loss(outputs + delta.reshape(outputs.shape), targets).double() - base).item()
            for delta in deltas.unbind(1)]


def curvature(loss: Loss, outputs: Tensor, targets: Tensor, delta: Float[Tensor, "sample output"]) -> float:
    """d^2/dh^2 Phi(out + h delta) at h = 0."""
    h = torch.zeros((), dtype=outputs.dtype, device=outputs.device, requires_grad=True)
    with second_derivatives("the loss"):
        value = loss(outputs.detach() + h * delta.reshape(outputs.shape), targets)
        slope, = torch.autograd.grad(value, h, create_graph=True)
        if not slope.requires_grad:  # linear in the outputs
            return 0.0
        return torch.autograd.grad(slope, h, allow_unused=True, materialize_grads=True)[0].item()
