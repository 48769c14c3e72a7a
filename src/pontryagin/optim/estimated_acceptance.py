"""The length of a step from the estimate of Lemma 2's constant, for loops that pass a closure."""

from dataclasses import dataclass
from math import isfinite
from sys import float_info

from pontryagin.problem import ProblemError

_ROUNDING = 1e-7
"""Relative to the loss: what a float32 closure cannot tell from zero."""
_GROW = (1.5, 10.0)
"""Least and most that rho is multiplied by after a rejection."""


@dataclass(frozen=True)
class EstimatedAcceptance:
    """rho = 2 C with C measured, not tuned: the predicted decrease of every step beside the achieved one.

    A step of length t promises mu(t) = t <G, dW> (summed over parameters) and achieves mu(t) - c t^2 to
    second order, so c t^2 = mu(t) - achieved is the price of its feasibility errors ([LCTE] Lemma 2) and t =
    mu(t) / (2 c t) the length of least
    loss: rho = 2 C. The next length is that of the largest c / mu seen, an old one forgotten by the factor
    `memory` a step (1: never), and at most `longest`.

    Guarantee: with a deterministic closure the loss never rises, and falls by at least `sufficient` times
    what was predicted; a step that fails the test is tried again at the length measured, `attempts` times. No
    rate has to be chosen: `lr` only sets the first trial, while longest allows. Each trial costs one more
    call of the closure. Meant for the same samples in
    every step: between different mini-batches the estimate is noise.
    """

    memory: float = 0.8
    sufficient: float = 1e-3
    longest: float = 100.0
    attempts: int = 12

    def __post_init__(self) -> None:
        if not (0 < self.memory <= 1 and 0 <= self.sufficient < 0.5 and self.longest > 0
                and self.attempts >= 1):
            raise ProblemError("EstimatedAcceptance: expected 0 < memory <= 1, 0 <= sufficient < 0.5, "
                               f"longest > 0 and attempts >= 1, found {self}")

    def judge(self, relaxation: float, predicted: float, loss: float, trial: float) -> tuple[bool, float]:
        """The test of sufficient decrease; the length from the larger of the remembered and the new
        estimate."""
        achieved = loss - trial
        accepted = isfinite(trial) and achieved >= self.sufficient * max(predicted, 0.0)
        if not accepted:
            best = relaxation * predicted / (2 * (predicted
                                                  - achieved)) if predicted > 0 and isfinite(trial) else 0.0
            return False, max(min(best, relaxation / _GROW[0]), relaxation / _GROW[1])
        longer = min(relaxation / self.memory, max(self.longest, relaxation))
        price = predicted - achieved
        if predicted <= 0 or price <= _ROUNDING * abs(loss) + float_info.min:
            return True, longer
        return True, min(longer, relaxation * predicted / (2 * price))
