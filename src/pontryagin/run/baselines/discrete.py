"""Torch optimizers over discrete weights, entry by entry: Li and Hao's rule, Bop and BinaryConnect.

Each takes weights (parameters with two axes or more); biases and normalizations are for another optimizer.
Each raises
ProblemError for wrong settings and weights, and NonFiniteError when a gradient is not finite: nothing has
been changed then.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.problem import NonFiniteError, ProblemError
from pontryagin.problem.admissible import Binary, DiscreteSet, Ternary
from pontryagin.run.baselines.entries import (
    binary_argmax,
    binary_penalty,
    inside,
    li_hao_penalty,
    rounded,
    ternary_argmax,
)

RHO = {Binary: 0.5, Ternary: 0.25}
"""Of LiHao by default: those of the authors' code."""


class _Flips(torch.optim.Optimizer):
    """Weights in a set, each changed by an argmax with a running mean m of minus its gradient."""

    def __init__(self, params: Iterable[nn.Parameter], admissible: Binary | Ternary,
                 defaults: dict[str, Any]) -> None:
        weights, name = _taken(self, params), type(self).__name__
        self.admissible = admissible
        for weight in weights:
            admissible.check(weight.shape[0], weight[0].numel())
            if not inside(weight, admissible):
                raise ProblemError(f"{name}: a weight of shape {tuple(weight.shape)} lies outside "
                                   f"{admissible!r}; begin with weights of the set, such as draw(shape, set) "
                                   "or set.project(weight)")
        super().__init__(weights, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One argmax of every weight. closure: computes the loss and its gradients."""
        loss = _loss(closure)
        _check_gradients(self, (weight for group in self.param_groups for weight in group["params"]))
        for group in self.param_groups:
            self._renew(group)
        return loss

    @abstractmethod
    def _renew(self, group: dict[str, Any]) -> None:
        """m of every weight of a group, and the argmax."""

    def _mean(self, weight: Tensor, start: float | None, renewal: float) -> Tensor:
        """m after its renewal; it begins uniform in +- start, or at 0."""
        state = self.state[weight]
        if not state:
            begun = torch.zeros_like(weight)
            state["mean"] = begun if start is None else begun.uniform_(-start, start)
        return -state["mean"].lerp_(weight.grad, renewal)  # kept as a mean of the gradient, -m


class LiHao(_Flips):
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
        super().__init__(params, admissible,
                         {"rho": rho, "renewal": renewal, "decay": decay, "period": period,
                                              "l1": l1, "start": start, "lr": lr, "steps": 0})

    def _renew(self, group: dict[str, Any]) -> None:
        renewal = group["lr"] * group["renewal"] * group["decay"] ** (group["steps"] // group["period"])
        for weight in group["params"]:
            if weight.grad is None:
                continue
            m = self._mean(weight, group["start"], renewal)
            if isinstance(self.admissible, Binary):
                weight.copy_(binary_argmax(m, weight, binary_penalty(m, weight, group["rho"])))
            else:
                weight.copy_(ternary_argmax(m, weight, li_hao_penalty(m, weight, group["rho"]), group["l1"]))
        group["steps"] += 1


class Bop(_Flips):
    """Flip where the running mean of the gradient is against the weight and large. (Helwegen et al., NeurIPS
    2019.)

        g <- g + lr (grad - g),   w <- -w where |g| > threshold and sign(g) = sign(w)

    grad: that of the batch-mean loss; lr is their gamma, threshold their tau. params: weights in {-1, 1}.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float = 1e-3, threshold: float = 1e-6) -> None:
        if not (0 <= lr <= 1 and threshold >= 0):
            raise ProblemError(f"Bop: expected 0 <= lr <= 1 and threshold >= 0, found {lr}, {threshold}")
        super().__init__(params, Binary(), {"lr": lr, "threshold": threshold})

    def _renew(self, group: dict[str, Any]) -> None:
        for weight in group["params"]:
            if weight.grad is not None:
                weight.copy_(binary_argmax(self._mean(weight, None, group["lr"]), weight, group["threshold"]))


class BinaryConnect(torch.optim.Adam):
    """Adam on latent weights x in [-1, 1] with the gradient at w = rounded(x). (Courbariaux et al., NeurIPS
    2015.)

        x <- clip(x + Adam's step with the gradient in w, -1, 1),   w <- rounded(x)

    The parameters hold w, always in the set; the optimizer holds x, which begins at the parameters as they
    are when it is made.
    """

    def __init__(self, params: Iterable[nn.Parameter], admissible: DiscreteSet, *, lr: float = 1e-3,
                 betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        if not isinstance(admissible, DiscreteSet):
            raise ProblemError("BinaryConnect expects a discrete set such as Binary() or Ternary(), found "
                               f"{admissible!r}")
        if not (lr >= 0 and len(betas) == 2 and all(0 <= beta < 1 for beta in betas) and eps > 0):
            raise ProblemError("BinaryConnect: expected lr >= 0, two betas in [0, 1) and eps > 0, found "
                               f"{lr}, {betas}, {eps}")
        self.weights = _taken(self, params)
        for weight in self.weights:
            admissible.check(weight.shape[0], weight[0].numel())
        self.admissible = admissible
        self._latent = [weight.detach().clamp(-1, 1).requires_grad_() for weight in self.weights]
        super().__init__(self._latent, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True)
        self._round()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of Adam and one rounding. closure: computes the loss and its gradients."""
        loss = _loss(closure)
        _check_gradients(self, self.weights)
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


def _taken(optimizer: object, params: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """A list of weights. ProblemError for none at all or for parameters with less than two axes."""
    weights = list(params)
    if not weights or not all(isinstance(weight, Tensor) and weight.ndim > 1 for weight in weights):
        shapes = [tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
                  for weight in weights]
        raise ProblemError(f"{type(optimizer).__name__} expects weights with two axes or more, found "
                           f"{shapes or 'none'}; train biases and normalizations by another optimizer")
    return weights


def _loss(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _check_gradients(optimizer: object, weights: Iterable[nn.Parameter]) -> None:
    """NonFiniteError when a gradient holds NaN or infinity: to be called before anything is changed."""
    sums = [weight.grad.sum() for weight in weights if weight.grad is not None]
    if sums and not torch.stack(sums).isfinite().all():
        raise NonFiniteError(f"{type(optimizer).__name__}: the gradient of a weight is not finite: nothing "
                             "has been changed; skip this batch or look at its loss")
