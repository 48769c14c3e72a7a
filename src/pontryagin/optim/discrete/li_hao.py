"""The optimizer of Li and Hao: the argmax of a penalized Hamiltonian over {-1, 1} or {-1, 0, 1}, entry by
entry."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from pontryagin.optim.discrete.rules import binary_argmax, binary_penalty, li_hao_penalty, ternary_argmax
from pontryagin.optim.discrete.weights import check_gradients, check_inside, taken
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Binary, Ternary

RHO = {Binary: 0.5, Ternary: 0.25}


class LiHao(torch.optim.Optimizer):
    """Weights in {-1, 1} or {-1, 0, 1}, without latent weights. (Li and Hao, ICML 2018.)

        m <- m + renewal_k (G - m),   G minus the gradient of the batch-mean loss,   renewal_k = renewal
        decay^floor(k / period) w <- argmax over the set of m v - (r/2) (v - w)^2, binary, or m v - l1 |v| - r
        (v - w)^2, ternary,   r = rho max |m|,

    the maximum over the entries of that weight that m would change. 1 - renewal is their a; `period` is an
    epoch in iterations, decay theirs of 1 - a. params: weights that lie in the set; biases and normalizations
    are for another optimizer (theirs: Adam at 1e-3). rho: by default theirs, 0.5 binary and 0.25 ternary. The
    rate lr multiplies renewal.

    m begins at random, uniform in +- start, as in their released code: where the gradient times renewal is
    smaller, the random part sets r and holds the weights at first. It has the unit of the gradient; theirs is
    that of a mean over samples (and, of a hinge loss, over classes).

    Raises ProblemError for wrong settings and weights outside the set, NonFiniteError when a gradient is not
    finite: nothing has been changed then.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        admissible: Binary | Ternary,
        *,
        rho: float | None = None,
        renewal: float = 1e-3,
        decay: float = 0.95,
        period: int = 550,
        l1: float = 1e-7,
        start: float = 1e-6,
        lr: float = 1.0,
    ) -> None:
        if not isinstance(admissible, Binary | Ternary) or admissible.scale != 1:
            raise ProblemError("LiHao knows the sets Binary() and Ternary() with scale 1, found "
                               f"{admissible!r}")
        rho = RHO[type(admissible)] if rho is None else rho
        if not (rho >= 0 and 0 < renewal <= 1 and 0 < decay <= 1 and period >= 1 and l1 >= 0 and start >= 0
                and 0 <= lr <= 1):
            raise ProblemError("LiHao: expected rho >= 0, 0 < renewal <= 1, 0 < decay <= 1, period >= 1, l1 "
                               f">= 0, start >= 0 and 0 <= lr <= 1, found {rho}, {renewal}, {decay}, "
                               f"{period}, {l1}, {start}, {lr}")
        weights = taken("LiHao", params)
        check_inside("LiHao", weights, admissible)
        self.admissible = admissible
        super().__init__(weights, {"rho": rho, "renewal": renewal, "decay": decay, "period": period, "l1": l1,
                                   "start": start, "lr": lr, "steps": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One argmax of every weight. closure: computes the loss and its gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        check_gradients("LiHao", (weight for group in self.param_groups for weight in group["params"]))
        for group in self.param_groups:
            renewal = group["lr"] * group["renewal"] * group["decay"] ** (group["steps"] // group["period"])
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    # of the gradient, -m
                    state["mean"] = torch.empty_like(weight).uniform_(-group["start"], group["start"])
                state["mean"].lerp_(weight.grad, renewal)
                self._maximize(weight, -state["mean"], group)
            group["steps"] += 1
        return loss

    def _maximize(self, weight: nn.Parameter, m: torch.Tensor, group: dict[str, Any]) -> None:
        if isinstance(self.admissible, Binary):
            weight.copy_(binary_argmax(m, weight, binary_penalty(m, weight, group["rho"])))
        else:
            weight.copy_(ternary_argmax(m, weight, li_hao_penalty(m, weight, group["rho"]), group["l1"]))
