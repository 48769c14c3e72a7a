"""BinaryConnect: latent real weights, rounded for every forward pass, trained by the straight-through
gradient."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.optim.discrete.rules import binary_codes, ternary_codes
from pontryagin.optim.discrete.weights import check_gradients, taken
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Binary, DiscreteSet, Rows, Ternary


class BinaryConnect(torch.optim.Adam):
    """Adam on latent weights x in [-1, 1] with the gradient at w = rounded(x). (Courbariaux et al., NeurIPS
    2015.)

        x <- clip(x + Adam's step with the gradient in w, -1, 1),   w <- rounded(x)

    The parameters hold w, always in the set; the optimizer holds x, which begins at the parameters as they
    are when it is made.
    rounded: the sign (Binary), 0 below 0.7 mean |x| of the weight and the sign elsewhere (Ternary, as Ternary
    Weight Networks), with a fixed scale; with a scale per row and for other discrete sets the projection.

    Raises ProblemError for wrong settings, NonFiniteError when a gradient is not finite: nothing has been
    changed then.
    """

    def __init__(self, params: Iterable[nn.Parameter], admissible: DiscreteSet, *, lr: float = 1e-3,
                 betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        if not isinstance(admissible, DiscreteSet):
            raise ProblemError("BinaryConnect expects a discrete set such as Binary() or Ternary(), found "
                               f"{admissible!r}")
        if not (lr >= 0 and len(betas) == 2 and all(0 <= beta < 1 for beta in betas) and eps > 0):
            raise ProblemError("BinaryConnect: expected lr >= 0, two betas in [0, 1) and eps > 0, found "
                               f"{lr}, {betas}, {eps}")
        self.weights = taken("BinaryConnect", params)
        for weight in self.weights:
            admissible.check(weight.shape[0], weight[0].numel())
        self.admissible = admissible
        self._latent = [weight.detach().clamp(-1, 1).requires_grad_() for weight in self.weights]
        super().__init__(self._latent, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)
        self._round()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of Adam and one rounding. closure: computes the loss and its gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        check_gradients("BinaryConnect", self.weights)
        for latent, weight in zip(self._latent, self.weights, strict=True):
            latent.grad = weight.grad
        super().step()
        for latent in self._latent:
            latent.clamp_(-1, 1)
        self._round()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of the weights."""
        for weight in self.weights:
            weight.grad = None if set_to_none or weight.grad is None else weight.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Adam's, and the latent weights."""
        return {**super().state_dict(), "latent": [latent.detach().clone() for latent in self._latent]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from such a state; the weights are rounded anew."""
        for latent, saved in zip(self._latent, state_dict["latent"], strict=True):
            latent.copy_(saved)
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "latent"})
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        for latent, weight in zip(self._latent, self.weights, strict=True):
            weight.copy_(rounded(latent, self.admissible))


def rounded(latent: Tensor, admissible: DiscreteSet) -> Tensor:
    """The weights that stand for latent ones: see BinaryConnect."""
    if admissible.scale != "row" and isinstance(admissible, Binary):
        return binary_codes(latent) * admissible.scale
    if admissible.scale != "row" and isinstance(admissible, Ternary):
        return ternary_codes(latent) * admissible.scale
    rows = Rows(latent.shape)
    return rows.shaped(admissible.project(rows.matrix(latent)))
