"""L-BFGS on several functions at once, each with its own history, step length, line search and pace."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Controls = Float[Tensor, "stage control"]
PerStage = Float[Tensor, " stage"]
Mask = Bool[Tensor, " stage"]
Evaluate = Callable[[Controls, Mask], tuple[PerStage, Controls]]
"""Values and gradients of the stages in the mask; those of the others are not used."""

_SUFFICIENT = 1e-4
"""Armijo's constant of the weak Wolfe conditions, as Nocedal and Wright have it (section 3.1)."""
_CURVATURE = 0.5
"""Their curvature constant, above _SUFFICIENT; of the middle: a long search costs more than a crude step."""
_LONGEST = 20.0
"""Times the last length at most where a search has no upper end: no extrapolation is to be believed more."""


@torch.no_grad()
def minimize(evaluate: Evaluate, start: Controls, iterations: int, history_size: int,
             searches: int) -> Controls:
    """`iterations` of L-BFGS with weak-Wolfe line searches of at most `searches` trials each.

    Every call of `evaluate` tries a point of every function that is not done: one whose search has ended goes
    on with its next iteration at once, so there are as many calls as the slowest function needs by itself. A
    function is done after its iterations, at a vanishing gradient, where its search fails, or where its first
    value is not finite.
    """
    value, gradient = evaluate(start, torch.ones(len(start), dtype=torch.bool, device=start.device))
    point = _Point(start, value, gradient)
    history = _History(history_size, start)
    left = torch.full_like(value, iterations, dtype=torch.long)
    active = value.isfinite() & gradient.isfinite().all(1) & _is_steep(gradient)
    search = _Search(point, *_direction(history, gradient))
    while active.any():
        trial = search.trial()
        searching = search.observe(_Point(trial, *evaluate(trial, active)), searches) & active
        ended = active & ~searching
        if ended.any():
            left = left - ended.long()
            found = search.best
            history.add(found.control - point.control, found.gradient - point.gradient, ended & search.moved)
            point = _where(ended, found, point)
            active = active & (searching | search.moved & (left > 0) & _is_steep(point.gradient))
            search.restart(ended & active, point, *_direction(history, point.gradient))
    return point.control


def _is_steep(gradient: Controls) -> Mask:
    return gradient.abs().amax(1) > torch.finfo(gradient.dtype).tiny ** 0.5


def _direction(history: "_History", gradient: Controls) -> tuple[Controls, PerStage]:
    """The quasi-Newton direction and first trial length; steepest descent where it does not descend."""
    direction = -history.times(gradient)
    steep = (direction * gradient).sum(1) >= 0
    direction = torch.where(steep[:, None], -gradient, direction)
    fresh = steep | ~history.filled()
    length = torch.where(fresh, (1 / gradient.norm(dim=1)).clamp_max(1.0), torch.ones_like(gradient[:, 0]))
    return direction, length


@dataclass(frozen=True)
class _Point:
    control: Controls
    value: PerStage
    gradient: Controls


@dataclass(frozen=True)
class _Bracket:
    """Lengths between which a search goes on, the values there, and the slope at the lower one."""

    low: PerStage
    low_value: PerStage
    low_slope: PerStage
    high: PerStage
    high_value: PerStage


_Rows = TypeVar("_Rows", _Point, _Bracket)


def _where(mask: Mask, here: _Rows, there: _Rows) -> _Rows:
    """The stages in the mask from here, the others from there."""
    pairs = ((getattr(here, one.name), getattr(there, one.name)) for one in fields(here))
    return type(here)(*(torch.where(mask.view(-1, *[1] * (new.ndim - 1)), new, old) for new, old in pairs))


class _Search:
    """A bracket between too short (still steep) and too long (no sufficient decrease), a step per stage.

    A bracket is narrowed at the least point of the parabola through what is known of its lower end and the
    value at its upper end; without an upper end the step goes to where the slope extrapolates to zero. A
    stage whose search ends without a Wolfe point has the best sufficient decrease that it saw, if any.
    """

    def __init__(self, origin: _Point, direction: Controls, length: PerStage) -> None:
        self.origin, self.best, self.direction, self.length = origin, origin, direction, length
        self.slope = (direction * origin.gradient).sum(1)
        self.bracket = self._whole()
        self.moved = torch.zeros_like(length, dtype=torch.bool)
        self.trials = torch.zeros_like(length, dtype=torch.long)

    def restart(self, mask: Mask, origin: _Point, direction: Controls, length: PerStage) -> None:
        """A new search of the stages in the mask."""
        self.origin, self.best = _where(mask, origin, self.origin), _where(mask, origin, self.best)
        self.direction = torch.where(mask[:, None], direction, self.direction)
        self.length = torch.where(mask, length, self.length)
        self.slope = (self.direction * self.origin.gradient).sum(1)
        self.bracket = _where(mask, self._whole(), self.bracket)
        self.moved, self.trials = self.moved & ~mask, self.trials.where(~mask, 0)

    def trial(self) -> Controls:
        """Where to evaluate next."""
        return self.origin.control + self.length[:, None] * self.direction

    def observe(self, trial: _Point, searches: int) -> Mask:
        """The stages whose search goes on."""
        finite = trial.value.isfinite() & trial.gradient.isfinite().all(1)
        enough = finite & (trial.value <= self.origin.value + _SUFFICIENT * self.length * self.slope)
        trial_slope = (self.direction * trial.gradient).sum(1)
        better = enough & (trial.value <= self.best.value)
        self.best, self.moved = _where(better, trial, self.best), self.moved | better
        short, long = enough & (trial_slope < _CURVATURE * self.slope), ~enough
        known = self.bracket
        lower = replace(known, low=self.length, low_value=trial.value, low_slope=trial_slope)
        self.bracket = _where(long, replace(known, high=self.length, high_value=trial.value),
                              _where(short, lower, known))
        self.trials = self.trials + 1
        going_on: Mask = (short | long) & (self.trials < searches)
        self.length = torch.where(going_on, self._next_length(), self.length)
        return going_on

    def _whole(self) -> _Bracket:
        """All lengths."""
        infinite = torch.full_like(self.slope, torch.inf)
        return _Bracket(torch.zeros_like(infinite), self.origin.value, self.slope, infinite, infinite)

    def _next_length(self) -> PerStage:
        """Within the bracket, at least a tenth of its width from its lower end and half of it from the upper,
        that it shrinks whatever the parabola says; beyond a lower end without an upper one, 2 to 20 times."""
        known = self.bracket
        open_ended = known.high.isinf()
        width = torch.where(open_ended, 0.0, known.high - known.low)
        rise = known.high_value - known.low_value
        fraction = 0.5 * (-known.low_slope * width) / (rise - known.low_slope * width)
        inside = known.low + width * fraction.nan_to_num(0.5).clamp(0.1, 0.5)
        factor = self.slope / (self.slope - known.low_slope)  # not positive where the slope gets steeper
        beyond = known.low * torch.where(factor > 0, factor, _LONGEST).clamp(2.0, _LONGEST)
        return torch.where(open_ended, beyond, inside)


class _History:
    """The last curvature pairs of every stage, the newest first; (pair, stage, control). A pair without
    positive curvature is left out: its inverse is 0."""

    def __init__(self, size: int, like: Controls) -> None:
        self.size = size
        self.steps, self.changes = like.new_zeros(1, *like.shape), like.new_zeros(1, *like.shape)
        self.inverses = like.new_zeros(1, len(like))

    def add(self, step: Controls, change: Controls, mask: Mask) -> None:
        """Of the stages in the mask."""
        curvature = (step * change).sum(1)
        fit = mask & (curvature > torch.finfo(step.dtype).eps * step.norm(dim=1) * change.norm(dim=1))
        if not fit.any():
            return
        inverse = torch.where(fit, 1 / torch.where(fit, curvature, 1.0), 0.0)
        self.steps = self._pushed(self.steps, step, fit)
        self.changes = self._pushed(self.changes, change, fit)
        self.inverses = self._pushed(self.inverses, inverse, fit)

    def _pushed(self, pairs: Tensor, new: Tensor, mask: Mask) -> Tensor:
        """`new` before the others for the stages in the mask; the others get a zero at the end."""
        before, own = torch.cat([new[None], pairs]), torch.cat([pairs, torch.zeros_like(new)[None]])
        return torch.where(mask.view(-1, *[1] * (new.ndim - 1)), before, own)[:self.size]

    def filled(self) -> Mask:
        """Whether a stage has any pair."""
        return self.inverses[0] > 0

    def times(self, gradient: Controls) -> Controls:
        """The two-loop recursion, with the newest pair's scaling as the initial inverse Hessian."""
        result, weights = gradient, []
        pairs = list(zip(self.steps, self.changes, self.inverses, strict=True))
        for step, change, inverse in pairs:
            weight = inverse * (step * result).sum(1)
            weights.append(weight)
            result = torch.addcmul(result, weight[:, None], change, value=-1)
        newest, fit = self.inverses[0], self.filled()
        scale = torch.where(fit, 1 / torch.where(fit, newest * self.changes[0].square().sum(1), 1.0), 1.0)
        result = scale[:, None] * result
        for (step, change, inverse), weight in zip(reversed(pairs), reversed(weights), strict=True):
            result = torch.addcmul(result, (weight - inverse * (change * result).sum(1))[:, None], step)
        return result
