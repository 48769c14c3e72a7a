"""L-BFGS on the augmented Hamiltonian, batched over equal stages, each with its own step and line search."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import grad_and_value, vmap

from pontryagin.hamiltonian import Measures, Penalties, augmented, measure
from pontryagin.maximizer.protocol import require_unconstrained
from pontryagin.problem import ProblemError
from pontryagin.trajectory import StageGroup

Controls = Float[Tensor, "stage control"]
PerStage = Float[Tensor, " stage"]
Mask = Bool[Tensor, " stage"]
Evaluate = Callable[[Controls, Mask], tuple[PerStage, Controls]]
"""Values and gradients of the stages in the mask; those of the others are not used."""

_SUFFICIENT = 1e-4  # Armijo and curvature constants of the weak Wolfe conditions
_CURVATURE = 0.5


@dataclass(frozen=True)
class LBFGS:
    """`iterations` of L-BFGS from `group.start`, the paper's argmax (10 iterations in [LCTE] section 4).

    Each stage has its own history, step length and weak-Wolfe line search; a stage that has converged, or whose search
    fails, is masked and stays where it is. The stages that are not masked are evaluated together by vmap;
    StageByStage(LBFGS()) gives the same controls one after the other. H~ never falls.
    """

    iterations: int = 10
    memory: int = 10
    searches: int = 20

    def __post_init__(self) -> None:
        for name in ("iterations", "memory", "searches"):
            if getattr(self, name) < 1:
                raise ProblemError(f"LBFGS {name}: expected a number >= 1, found {getattr(self, name)}")

    def model(self, group: StageGroup) -> "LBFGSModel":
        """Nothing is computed before maximize."""
        require_unconstrained(group, "LBFGS")
        return LBFGSModel(group, self)


class LBFGSModel:
    """H~ as a function to be evaluated."""

    def __init__(self, group: StageGroup, settings: LBFGS) -> None:
        self.group, self.settings, self.evaluations = group, settings, 0

    def maximize(self, penalties: Penalties) -> Controls:
        """Minimize -H~ of all stages at once."""

        def one(control: Tensor, *data: Tensor) -> Tensor:
            return -augmented(self.group.stage, control, data, penalties)  # type: ignore[arg-type]

        batched = vmap(grad_and_value(one))

        def evaluate(controls: Controls, wanted: Mask) -> tuple[PerStage, Controls]:
            self.evaluations += 1
            if wanted.all():
                gradient, value = batched(controls, *self.group.data)
                return value, gradient
            rows = wanted.nonzero().squeeze(1)
            gradient, value = batched(controls[rows], *(part[rows] for part in self.group.data))
            return (torch.full_like(controls[:, 0], torch.inf).index_put((rows,), value),
                    torch.zeros_like(controls).index_put((rows,), gradient))

        return minimize(evaluate, self.group.start, self.settings)

    def measure(self, controls: Controls) -> Measures:
        """By evaluating the stages."""
        self.evaluations += 1
        return measure(self.group, controls)


@torch.no_grad()
def minimize(evaluate: Evaluate, start: Controls, settings: LBFGS) -> Controls:
    """Minimize several functions at once; `evaluate` gives values (stage,) and gradients (stage, control)."""
    point = start
    value, gradient = evaluate(point, torch.ones(len(start), dtype=torch.bool, device=start.device))
    history = _History(settings.memory)
    active = value.isfinite() & gradient.isfinite().all(1)
    for _ in range(settings.iterations):
        active = active & (gradient.abs().amax(1) > torch.finfo(gradient.dtype).tiny ** 0.5)
        if not active.any():
            break
        direction, length = _direction(history, gradient)
        new_point, new_value, new_gradient, active = _weak_wolfe(
            evaluate, (point, value, gradient), direction, length, active, settings.searches)
        history.add(new_point - point, new_gradient - gradient)
        point, value, gradient = new_point, new_value, new_gradient
    return point


def _direction(history: "_History", gradient: Controls) -> tuple[Controls, PerStage]:
    """The quasi-Newton direction and first trial length; steepest descent where it does not descend."""
    direction = -history.times(gradient)
    steep = (direction * gradient).sum(1) >= 0
    direction = torch.where(steep[:, None], -gradient, direction)
    fresh = steep | ~history.filled(gradient)
    length = torch.where(fresh, (1 / gradient.norm(dim=1)).clamp_max(1.0), torch.ones_like(gradient[:, 0]))
    return direction, length


def _weak_wolfe(evaluate: Evaluate, current: tuple[Controls, PerStage, Controls], direction: Controls, length: PerStage,
                active: Mask, searches: int) -> tuple[Controls, PerStage, Controls, Mask]:
    """A bracket between too short (still steep) and too long (no sufficient decrease), a step per stage.

    A bracket is narrowed at the least point of the parabola through what is known of its lower end and the value at its
    upper end; without an upper end the step is multiplied by 3. Returns the new points, values, gradients and the stages
    that moved. A stage whose search ends without a Wolfe point keeps the best sufficient decrease that it saw.
    """
    point, value, gradient = current
    slope = (direction * gradient).sum(1)
    low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
    low_value, low_slope, high_value = value, slope, high
    best = (point, value, gradient)
    moved, searching = torch.zeros_like(active), active.clone()
    for _ in range(searches):
        trial = point + length[:, None] * direction
        trial_value, trial_gradient = evaluate(trial, searching)
        finite = trial_value.isfinite() & trial_gradient.isfinite().all(1)
        enough = finite & (trial_value <= value + _SUFFICIENT * length * slope)
        trial_slope = (direction * trial_gradient).sum(1)
        better = searching & enough & (trial_value <= best[1])
        best = (_where(better, trial, best[0]), _where(better, trial_value, best[1]),
                _where(better, trial_gradient, best[2]))
        moved = moved | better
        short = searching & enough & (trial_slope < _CURVATURE * slope)
        long = searching & ~enough
        low, low_value, low_slope = (_where(short, new, old) for new, old in (
            (length, low), (trial_value, low_value), (trial_slope, low_slope)))
        high, high_value = _where(long, length, high), _where(long, trial_value, high_value)
        searching = short | long
        if not searching.any():
            break
        length = _where(searching, _next_length(low, low_value, low_slope, high, high_value), length)
    return *best, moved


def _next_length(low: PerStage, low_value: PerStage, low_slope: PerStage, high: PerStage,
                 high_value: PerStage) -> PerStage:
    """Within the bracket, at least a tenth of its width from its lower end and half of it from the upper."""
    width = torch.where(high.isinf(), 0.0, high - low)
    fraction = 0.5 * (-low_slope * width) / (high_value - low_value - low_slope * width)
    inside = low + width * fraction.nan_to_num(0.5).clamp(0.1, 0.5)
    return torch.where(high.isinf(), 3 * low, inside)


def _where(mask: Mask, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (new.ndim - 1)), new, old)


class _History:
    """The curvature pairs of all stages; a pair without positive curvature is left out for its stage only."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.pairs: list[tuple[Controls, Controls, PerStage]] = []

    def add(self, step: Controls, change: Controls) -> None:
        curvature = (step * change).sum(1)
        fit = curvature > torch.finfo(step.dtype).eps * step.norm(dim=1) * change.norm(dim=1)
        inverse = torch.where(fit, 1 / torch.where(fit, curvature, 1.0), 0.0)
        self.pairs = [*self.pairs, (step, change, inverse)][-self.memory:]

    def filled(self, like: Controls) -> Mask:
        """Whether a stage has any pair."""
        mask = torch.zeros(like.shape[0], dtype=torch.bool, device=like.device)
        for _, _, inverse in self.pairs:
            mask = mask | (inverse > 0)
        return mask

    def times(self, gradient: Controls) -> Controls:
        """The two-loop recursion, with the newest pair's scaling as the initial inverse Hessian."""
        result, weights = gradient, []
        for step, change, inverse in reversed(self.pairs):
            weight = inverse * (step * result).sum(1)
            weights.append(weight)
            result = result - weight[:, None] * change
        result = self._scale(gradient)[:, None] * result
        for (step, change, inverse), weight in zip(self.pairs, reversed(weights), strict=True):
            result = result + (weight - inverse * (change * result).sum(1))[:, None] * step
        return result

    def _scale(self, like: Controls) -> PerStage:
        scale = torch.ones_like(like[:, 0])
        for _, change, inverse in self.pairs:  # the newest valid pair of each stage wins
            fit = inverse > 0
            scale = torch.where(fit, 1 / torch.where(fit, inverse * change.square().sum(1), 1.0), scale)
        return scale
