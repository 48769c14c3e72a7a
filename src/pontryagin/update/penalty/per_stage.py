"""rho_n = 2 C_n with a constant for every stage, measured at both ends of the last step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from jaxtyping import Float
from torch import Tensor

from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import HamiltonianModel
from pontryagin.problem import ProblemError
from pontryagin.update.penalty.from_estimate import FIRST, check_estimate, rho_factor
from pontryagin.update.penalty.rule import Trial, costate_ratio, held


@dataclass
class PerStageEstimate:
    """FromEstimate with a C of its own for each stage.

    One evaluation of J measures one remainder J_new - J_old + mu for all stages. Its parts come from the next
    iteration, at no further propagation: with Delta H_n the gain of stage n on the way there, and Delta H'_n
    that of going back, at the new states and costates, the remainder is the sum of (Delta H_n + Delta H'_n) /
    2 up to third order in the step. So

        C_n = rho_n (Delta H_n + Delta H'_n) / (2 Delta H_n),   scaled so that the parts add up to the
        remainder measured.

    rho_n = 2 max(C_n, rho_decay * the last), within a factor `largest_ratio` of their median. A rejected
    trial multiplies all rho_n by one factor.

    rho, rho_decay, sufficient, costate_weight, attempts: as FromEstimate's. largest_ratio: >= 1; 10, so that
    a stage whose part was measured near zero does not leap.

    Guarantee, on a full batch: as FromEstimate, J never rises. Half of the predicted decrease is reached
    where C_n are those of the last step. Every stage is a group by itself: equal stages are not batched,
    which costs time on small networks.
    """

    rho: float = 5.0
    rho_decay: float = 0.8
    sufficient: float = 1e-3
    costate_weight: float = 1.0
    largest_ratio: float = 10.0
    attempts: int = 30
    per_stage: bool = field(default=True, init=False)
    _each: list[float] = field(default_factory=list, init=False, repr=False)
    _excess: float = field(default=1.0, init=False, repr=False)
    _decay: float = field(default=FIRST, init=False, repr=False)
    _ratio: float = field(default=0.0, init=False, repr=False)
    _models: Sequence[HamiltonianModel] = field(default=(), init=False, repr=False)
    _last: "_Step | None" = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_estimate(self, self.rho, self.rho_decay, self.sufficient, self.costate_weight)
        if not self.largest_ratio >= 1:
            raise ProblemError("PerStageEstimate largest_ratio: expected a number >= 1, found "
                               f"{self.largest_ratio}")

    def begin(self, models: Sequence[HamiltonianModel]) -> None:
        """The parts of the last remainder, measured from the new controls back to the old."""
        if len(self._each) != len(models):
            self._each, self._last = [self.rho] * len(models), None
        if self._last is not None:
            self._learn(models, self._last)
        self._ratio, self._models, self._last = costate_ratio(models, self.costate_weight), models, None

    def penalties(self) -> list[Penalties]:
        return [Penalties(rho, rho * self._ratio) for rho in self._each]

    def accepts(self, trial: Trial) -> bool:
        """A rejection raises all rho_n; what an acceptance teaches is seen in the next begin."""
        accepted = trial.falls_enough(self.sufficient)
        factor = rho_factor(trial, accepted, self._decay, self._excess)
        self._excess = 1.0 if accepted and trial.tells else self._excess * factor
        if accepted:
            controls = [model.group.control for model in self._models]
            self._last = _Step(controls, [float(measure.gain.sum()) for measure in trial.measures],
                               trial.remainder, factor)
        else:
            self._each = [held(factor * rho) for rho in self._each]
        return accepted

    def _learn(self, models: Sequence[HamiltonianModel], step: "_Step") -> None:
        parts = [0.5 * (gain + float(model.measure(old).gain.sum()))
                 for model, old, gain in zip(models, step.controls, step.gains, strict=True)]
        scale = step.remainder / sum(parts) if sum(parts) > 0 else 0.0
        if not 0.5 < scale < 2:  # parts off by half or more: the third order is not small; one factor for all
            self._each = [held(step.factor * rho) for rho in self._each]
            self._decay = self.rho_decay
            return
        found = [rho * max(self._decay, 2 * scale * part / gain if gain > 0 else 0.0)
                 for rho, part, gain in zip(self._each, parts, step.gains, strict=True)]
        self._decay = self.rho_decay
        low, high = median(found) / self.largest_ratio, median(found) * self.largest_ratio
        self._each = [held(min(max(rho, low), high)) for rho in found]


@dataclass(frozen=True)
class _Step:
    """An accepted step: the controls that it started from, gains by stage, FromEstimate's factor."""

    controls: list[Float[Tensor, "_ _"]]
    gains: list[float]
    remainder: float
    factor: float
