"""Accept/reject of whole steps, for loops that pass a closure: a step is tried until a rule takes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from sys import float_info
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from pontryagin.errors import ProblemError
from pontryagin.optim.moves import Moves

_ROUNDING = 1e-7
"""Relative to the loss: what a float32 closure cannot tell from zero."""
_GROW = (1.5, 10.0)
"""Least and most that rho is multiplied by after a rejection: a measured length is never trusted for more."""


@runtime_checkable
class AcceptanceRule(Protocol):
    """Judges a trial step of length `step_scale` (1 is the optimizer's own step, rho is divided by it) and
    sets the next one.

    What a rule has to remember from step to step is the step_scale alone: it is saved with the optimizer.
    """

    @property
    def attempts(self) -> int:
        """Trials in a step before it is given up and the parameters are left as they were."""

    def judge(self, step_scale: float, predicted: float, loss: float, trial: float) -> tuple[bool, float]:
        """Whether the trial is taken, and the step_scale of the next trial, of this step or the next.

        predicted: the decrease that this step promises to first order, sum over parameters of <-gradient,
        change>.
        loss, trial: of the closure before and after the step; trial may be NaN or infinite.
        """


@dataclass(frozen=True)
class Acceptance:
    """Take a step only if the loss of the closure does not rise; otherwise divide it by `grow` (rho times
    `grow`) and try again.

    Guarantee: with a deterministic closure the loss never rises from step to step. After an accepted step rho
    is multiplied by `shrink`, never below that of the optimizer alone. A step that is rejected `attempts`
    times is not taken. Each trial costs one more call of the closure.
    """

    grow: float = 3.0
    shrink: float = 0.7
    attempts: int = 6

    def __post_init__(self) -> None:
        if not (self.grow > 1 and 0 < self.shrink <= 1 and self.attempts >= 1):
            raise ProblemError("Acceptance: expected grow > 1, 0 < shrink <= 1 and attempts >= 1, found "
                               f"{self}")

    def judge(self, step_scale: float, predicted: float, loss: float, trial: float) -> tuple[bool, float]:
        """By the losses alone."""
        if trial <= loss:
            return True, min(1.0, step_scale / self.shrink)
        return False, step_scale / self.grow


@dataclass(frozen=True)
class EstimatedAcceptance:
    """rho = 2 C with C measured, not tuned: the predicted decrease of every step beside the achieved one.

    A step of length t promises mu(t) = t <G, dW> (summed over parameters) and achieves mu(t) - c t^2 to
    second order, so c t^2 = mu(t) - achieved is the price of its feasibility errors ([LCTE] Lemma 2) and t =
    mu(t) / (2 c t) the length of least loss: rho = 2 C. The next length is that of the largest c / mu seen,
    an old one forgotten by the factor `rho_decay` a step (1: never), and at most `longest`.

    Guarantee: with a deterministic closure the loss never rises, and falls by at least `sufficient` times
    what was predicted; a step that fails the test is tried again at the length measured, `attempts` times. No
    rate
    has to be chosen: `lr` only sets the first trial, while longest allows. Each trial costs one more call of
    the closure. Meant for the same samples in every step: between different mini-batches the estimate is
    noise.
    """

    rho_decay: float = 0.8
    sufficient: float = 1e-3
    longest: float = 100.0
    attempts: int = 12

    def __post_init__(self) -> None:
        if not (0 < self.rho_decay <= 1 and 0 <= self.sufficient < 0.5 and self.longest > 0
                and self.attempts >= 1):
            raise ProblemError("EstimatedAcceptance: expected 0 < rho_decay <= 1, 0 <= sufficient < 0.5, "
                               f"longest > 0 and attempts >= 1, found {self}")

    def judge(self, step_scale: float, predicted: float, loss: float, trial: float) -> tuple[bool, float]:
        """The test of sufficient decrease; the length from the larger of the remembered and the new
        estimate."""
        achieved = loss - trial
        accepted = isfinite(trial) and achieved >= self.sufficient * max(predicted, 0.0)
        if not accepted:
            measured = predicted > 0 and isfinite(trial)
            best = step_scale * predicted / (2 * (predicted - achieved)) if measured else 0.0
            return False, max(min(best, step_scale / _GROW[0]), step_scale / _GROW[1])
        longer = min(step_scale / self.rho_decay, max(self.longest, step_scale))
        price = predicted - achieved
        if predicted <= 0 or price <= _ROUNDING * abs(loss) + float_info.min:
            return True, longer
        return True, min(longer, step_scale * predicted / (2 * price))


def search(rule: AcceptanceRule, moves: Sequence[Moves], apply: Callable[[float], None],
           closure: Callable[[], Any], loss: Any, groups: Sequence[dict[str, Any]]) -> None:
    """Apply the moves, times a length that the rule takes; leave the parameters alone where it takes none.

    apply: adds the moves times a length. loss: the closure's before. groups: whose step_scale is set.
    """
    if loss is None:
        raise ProblemError("acceptance needs the loss: the closure returned None")
    before = [(parameter, parameter.clone()) for one in moves for parameter in one.parameters]
    # trials replace the gradients
    promised, value = sum(one.predicted() for one in moves), torch.as_tensor(loss).item()
    for _ in range(rule.attempts):
        length = groups[0]["step_scale"]
        apply(length)
        try:
            with torch.enable_grad():
                trial = torch.as_tensor(closure()).item()
        except BaseException:  # an interrupt, no memory: a trial is no step
            _put_back(before)
            raise
        accepted, scale = rule.judge(length, length * promised, value, trial)
        for group in groups:
            group["step_scale"] = scale
        if accepted:
            return
        _put_back(before)


def _put_back(before: Sequence[tuple[Tensor, Tensor]]) -> None:
    for parameter, old in before:
        parameter.copy_(old)
