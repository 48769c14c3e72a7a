"""Bop, the binary optimizer without latent weights that is customarily compared with."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from pontryagin.optim.discrete.rules import bop_flips
from pontryagin.optim.discrete.weights import check_gradients, check_inside, taken
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Binary


class Bop(torch.optim.Optimizer):
    """Flip where the running mean of the gradient is against the weight and large. (Helwegen et al., NeurIPS
    2019.)

        g <- g + lr (grad - g),   w <- -w where |g| > threshold and sign(g) = sign(w)

    grad: that of the batch-mean loss; lr is their gamma, threshold their tau. params: weights in {-1, 1}.
    Raises ProblemError for wrong settings and weights outside the set, NonFiniteError when a gradient is not
    finite: nothing has been changed then.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float = 1e-3, threshold: float = 1e-6) -> None:
        if not (0 <= lr <= 1 and threshold >= 0):
            raise ProblemError(f"Bop: expected 0 <= lr <= 1 and threshold >= 0, found {lr}, {threshold}")
        weights = taken("Bop", params)
        self.admissible = Binary()
        check_inside("Bop", weights, self.admissible)
        super().__init__(weights, {"lr": lr, "threshold": threshold})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One decision for every weight. closure: computes the loss and its gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        check_gradients("Bop", (weight for group in self.param_groups for weight in group["params"]))
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["mean"] = torch.zeros_like(weight)
                state["mean"].lerp_(weight.grad, group["lr"])
                weight.copy_(bop_flips(-state["mean"], weight, group["threshold"]))
        return loss
