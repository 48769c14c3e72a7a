"""Adam on all controls of a problem, its rate chosen on a grid."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite

import torch

from pontryagin.papers.certificate.tasks import Descent

RATES = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)
TUNING_SEED = 1000


@dataclass(frozen=True)
class Tuning:
    """scores: the least J of a run on a seed of its own, by rate; infinite where it diverged."""

    scores: dict[float, float]

    @property
    def best(self) -> float:
        """The rate with the least score."""
        return min(self.scores, key=self.scores.__getitem__)


def adam(descent: Descent, rate: float, iterations: int) -> list[float]:
    """J before each iteration and after the last of torch.optim.Adam with its default moments; shorter where
    J diverges."""
    start, objective = descent
    controls = [control.clone().requires_grad_() for control in start]
    optimizer = torch.optim.Adam([control for control in controls if control.numel()], lr=rate)
    losses = []
    for _ in range(iterations):
        loss = objective(controls)
        losses.append(loss.item())
        if not isfinite(losses[-1]):
            return losses
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return [*losses, objective(controls).item()]


def tune(make: Callable[[int], Descent], iterations: int, rates: tuple[float, ...],
         advance: Callable[[int], None]) -> Tuning:
    """The rate that reaches the lowest J in `iterations`, on data and controls that no reported run uses."""
    scores = {}
    for number, rate in enumerate(rates, 1):
        losses = adam(make(TUNING_SEED), rate, iterations)
        scores[rate] = min(losses) if isfinite(losses[-1]) else inf
        advance(number)
    return Tuning(scores)
