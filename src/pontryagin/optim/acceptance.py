"""Accept/reject of whole steps, for loops that pass a closure."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pontryagin.problem import ProblemError


@runtime_checkable
class AcceptanceRule(Protocol):
    """Judges a trial step of length `relaxation` (1 is the optimizer's own step, rho is divided by it) and
    sets the next length.

    What a rule has to remember from step to step is the relaxation alone: it is saved with the optimizer.
    """

    @property
    def attempts(self) -> int:
        """Trials in a step before it is given up and the parameters are left as they were."""

    def judge(self, relaxation: float, predicted: float, loss: float, trial: float) -> tuple[bool, float]:
        """Whether the trial is taken, and the relaxation of the next trial, of this step or the next.

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

    def judge(self, relaxation: float, predicted: float, loss: float, trial: float) -> tuple[bool, float]:
        """By the losses alone."""
        if trial <= loss:
            return True, min(1.0, relaxation / self.shrink)
        return False, relaxation / self.grow
