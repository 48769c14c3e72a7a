"""Any rule, its costate penalty relative to the scale of the costates."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import HamiltonianModel
from pontryagin.problem import ProblemError
from pontryagin.update.penalty.rule import PenaltyRule, Trial, costate_ratio


@dataclass
class RelativeCostates:
    """rho_costate = rho_state * weight * min(1, 1 / mean |p|^2), rho_state and all judgments another rule's.

    AcceptReject and the rules from an estimate do so by themselves; it is for Fixed and rules of one's own.

    rule: the other rule; its costate penalty is not used. weight: finite and >= 0; 1 weighs the costate error
    as the state error while costates are small. Raises ProblemError for others.

    Guarantee: the other rule's, as far as that rule does not rest on its costate penalty. Theorem 4 of [LCTE]
    needs rho_costate > 2C too, with C the constant for which remainder <= C (state error + ratio * costate
    error).
    """

    rule: PenaltyRule
    weight: float = 1.0
    _ratio: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (isfinite(self.weight) and self.weight >= 0):
            raise ProblemError(f"RelativeCostates weight: expected a finite number >= 0, found {self.weight}")

    @property
    def attempts(self) -> int:
        return self.rule.attempts

    @property
    def per_stage(self) -> bool:
        return self.rule.per_stage

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        self._ratio = costate_ratio(models, self.weight)
        self.rule.begin(models)

    def penalties(self) -> list[Penalties]:
        return [Penalties(rho.rho_state, rho.rho_state * self._ratio) for rho in self.rule.penalties()]

    def accepts(self, trial: Trial) -> bool:
        return self.rule.accepts(trial)
