"""Accept/reject of whole steps, for loops that pass a closure."""

from dataclasses import dataclass

from pontryagin.problem import ProblemError


@dataclass(frozen=True)
class Acceptance:
    """Take a step only if the loss of the closure does not rise; otherwise divide it by `grow` (rho times `grow`) and try again.

    After an accepted step rho is multiplied by `shrink`, never below that of the optimizer alone. A step that is rejected
    `attempts` times is not taken. Each trial costs one more call of the closure.
    """

    grow: float = 3.0
    shrink: float = 0.7
    attempts: int = 6

    def __post_init__(self) -> None:
        if not (self.grow > 1 and 0 < self.shrink <= 1 and self.attempts >= 1):
            raise ProblemError(f"Acceptance: expected grow > 1, 0 < shrink <= 1 and attempts >= 1, found {self}")
