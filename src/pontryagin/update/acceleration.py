"""What to do with the argmax beside taking it: nothing, momentum, or secants over all stages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from pontryagin.distributed import GroupModel, StageModels
from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer import QuadraticModel
from pontryagin.problem import ProblemError

Controls = list[Float[Tensor, "_ _"]]
"""One tensor (stage, control) a group of equal stages."""
EachPenalties = Sequence[Penalties]
"""One a group."""
_STALE = 2
"""Rejections after which an old direction is dropped: one may be a guess of rho, two say that it leads up."""


@runtime_checkable
class Acceleration(Protocol):
    """Turns the argmax into the controls to try. A solver works on its own copy."""

    full_batch: bool
    """Whether it compares gradients of different iterations, which must then be on the same samples."""

    def propose(self, models: StageModels, penalties: EachPenalties) -> Controls:
        """The controls of the next trial, a tensor a group, with penalties for each group."""

    def accept(self, models: StageModels, penalties: EachPenalties, controls: Controls) -> None:
        """The trial has been taken."""


@dataclass
class Plain:
    """The argmax itself: [LCTE] Algorithms 1 and 2."""

    full_batch: bool = field(default=False, init=False)

    def propose(self, models: StageModels, penalties: EachPenalties) -> Controls:
        return models.maximize(penalties)

    def accept(self, models: StageModels, penalties: EachPenalties, controls: Controls) -> None:
        """Nothing to remember."""


@dataclass
class Momentum:
    """v <- beta v + (1 - beta) rho (theta* - theta); try theta + v / rho, rho the state penalty.

    Multiplied by rho, steps of different penalties are comparable. Where v promises no gain, and after two
    rejections in an iteration, it is set back to the argmax alone, so a predicted decrease is always
    positive. Stages with an admissible set take the argmax itself.

    beta: in [0, 1), the share of the old v; 0.7 is what a few past steps agree on: 1 / (1 - beta) = 3.3 of
    them. Raises ProblemError for others, and in an iteration without a penalty on states or controls.
    Source: Polyak's heavy ball, with an average in the place of a sum.
    """

    beta: float = 0.7
    full_batch: bool = field(default=False, init=False)
    _velocity: Controls | None = field(default=None, init=False, repr=False)
    _tried: tuple[StageModels, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise ProblemError(f"beta: expected a number in [0, 1), found {self.beta}")

    def propose(self, models: StageModels, penalties: EachPenalties) -> Controls:
        argmax = models.maximize(penalties)
        rejections = self._tried[1] + 1 if self._tried and self._tried[0] is models else 0
        self._tried = models, rejections
        if self._velocity is None or rejections >= _STALE:
            return argmax
        if any(own.step_scale == 0 for own in penalties):
            raise ProblemError("momentum needs a state penalty > 0: it is measured in units of 1/rho_state")
        trial = [model.group.control + (1 - self.beta) * (best - model.group.control) + self.beta * old
                 / own.step_scale if model.group.stage.admissible.unconstrained else best
                 for model, own, best, old in zip(models, penalties, argmax, self._velocity, strict=True)]
        gain = sum(float(measure.gain.sum()) for measure in models.measure(trial))
        return trial if gain > 0 else argmax

    def accept(self, models: StageModels, penalties: EachPenalties, controls: Controls) -> None:
        """Remember the step taken, in units of 1/rho."""
        self._tried = None
        self._velocity = [own.step_scale * (new - model.group.control)
                          for model, own, new in zip(models, penalties, controls, strict=True)]


@dataclass
class Secant:
    """L-BFGS over all stages, the closed-form or Gauss-Newton solve its initial inverse Hessian; full
    batches.

    The argmax knows the curvature within a stage exactly and nothing between stages; secants of successive
    gradients of J add the coupling. rho divides the whole quasi-Newton step, whose natural length is 1: use
    it with AcceptReject(rho=1, restart=True).

    history_size: pairs of steps and changes of the gradient kept, >= 1; 20, twice the usual 10, since
        a pair costs no evaluation. first_rho: the first step is the argmax at this rho, short enough to be
        taken anywhere. Raises ProblemError for other numbers, for stages with neither, and in an iteration
        without a state penalty.
    Source: Nocedal and Wright, Numerical Optimization, Algorithm 7.4.
    """

    history_size: int = 20
    first_rho: float = 100.0
    full_batch: bool = field(default=True, init=False)
    _pairs: list[tuple[Controls, Controls]] = field(default_factory=list, init=False, repr=False)
    _last: tuple[Controls, Controls] | None = field(default=None, init=False, repr=False)
    _proposal: tuple[StageModels, Controls] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.history_size < 1:
            raise ProblemError(f"history_size: expected a number >= 1, found {self.history_size}")

    def propose(self, models: StageModels, penalties: EachPenalties) -> Controls:
        """theta + d / rho, d the quasi-Newton direction, found once for an iteration."""
        quadratic = [_quadratic(model) for model in models]
        if any(own.rho_state == 0 for own in penalties):
            raise ProblemError("secant acceleration needs a state penalty > 0: it divides the quasi-Newton "
                               "step")
        if self._proposal is None or self._proposal[0] is not models:
            unit = [Penalties(1.0, own.rho_costate / own.rho_state) for own in penalties]
            self._proposal = (models, self._direction(quadratic, unit))
        return [model.group.control + move / own.rho_state
                for model, own, move in zip(quadratic, penalties, self._proposal[1], strict=True)]

    def accept(self, models: StageModels, penalties: EachPenalties, controls: Controls) -> None:
        """Remember the step and the gradient that it started from."""
        quadratic = [_quadratic(model) for model in models]
        step = [new - model.group.control for model, new in zip(quadratic, controls, strict=True)]
        self._last = (step, [model.gradient for model in quadratic])

    def _direction(self, models: list[QuadraticModel], unit: EachPenalties) -> Controls:
        gradient = [model.gradient for model in models]
        self._remember(gradient)
        argmax = [model.solve(model.gradient, own) for model, own in zip(models, unit, strict=True)]
        if not self._pairs:
            return [move / self.first_rho for move in argmax]
        direction = self._two_loops(models, gradient, unit)
        if inner(direction, gradient) > 0:
            return direction
        self._pairs.clear()
        return [move / self.first_rho for move in argmax]

    def _remember(self, gradient: Controls) -> None:
        if self._last is None:
            return
        step, before = self._last
        change = [old - new for old, new in zip(before, gradient, strict=True)]
        # a pair without positive curvature to some digits of float64 would spoil the whole recursion
        if inner(step, change) > 1e-12 * (inner(step, step) * inner(change, change)) ** 0.5:
            self._pairs = [*self._pairs, (step, change)][-self.history_size:]
        self._last = None

    def _two_loops(self, models: list[QuadraticModel], gradient: Controls, unit: EachPenalties) -> Controls:
        result, weights = gradient, []
        for step, change in reversed(self._pairs):
            weights.append(inner(step, result) / inner(step, change))
            result = _plus(result, change, -weights[-1])
        result = [model.solve(part, own) for model, own, part in zip(models, unit, result, strict=True)]
        step, change = self._pairs[-1]
        solved = [model.solve(part, own) for model, own, part in zip(models, unit, change, strict=True)]
        scale = inner(step, change) / inner(change, solved)
        result = [scale * part for part in result]
        for (step, change), weight in zip(self._pairs, reversed(weights), strict=True):
            result = _plus(result, step, weight - inner(change, result) / inner(step, change))
        return result


def augmented_gain(models: StageModels, penalties: EachPenalties, controls: Controls,
                   measures: Sequence[Measures]) -> float:
    """sum_n H~_n(new) - H~_n(old) of these controls, with their measures: what Theorem 4 needs to be >= 0."""
    total = 0.0
    for model, own, new, measure in zip(models, penalties, controls, measures, strict=True):
        protects = model.group.protects(own.everywhere).to(measure.gain)
        moved = (new - model.group.control).square().sum(1).to(measure.gain)
        total += float((measure.gain - 0.5 * (own.rho_state * measure.state_error + own.rho_control * moved
                                              + own.rho_costate * protects * measure.costate_error)).sum())
    return total


def inner(first: Controls, second: Controls) -> float:
    """The inner product over all stages."""
    return sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))


def _plus(first: Controls, second: Controls, factor: float) -> Controls:
    return [a + factor * b for a, b in zip(first, second, strict=True)]


def _quadratic(model: GroupModel) -> QuadraticModel:
    if not isinstance(model, QuadraticModel):
        raise ProblemError("secant acceleration needs stages with a closed form or a small control, but "
                           f"{model.group.stage.name} is maximized by {model.method}: split it at its affine "
                           "map (split_euler)")
    return model
