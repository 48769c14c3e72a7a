"""How far controls are from the maximum principle, at every t."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, hessian, vmap

from pontryagin.continuous.problem import ContinuousProblem
from pontryagin.continuous.solution import Solution
from pontryagin.problem import ProblemError
from pontryagin.problem.forward_mode import load_rules

_GRID = 33
"""Points of an entry with bounds at which H is looked at: an argmax inside is refined by Newton's method."""
_ROUNDS = 3
"""Of Newton steps, each halved up to _HALVINGS times, from the best point so far."""
_HALVINGS = 6


@dataclass(frozen=True)
class Residual:
    """Over the middles t of the intervals. residual: max over theta of H - H at the control, >= 0, and 0 for
    all t exactly where the maximum principle holds; switching: dH/dtheta at the control; hamiltonian: H;
    argmax: where its maximum was found. Means over samples; with a control per sample, of each (interval,
    sample, ...)."""

    t: Float[Tensor, " interval"]
    residual: Tensor
    switching: Tensor
    hamiltonian: Tensor
    argmax: Tensor


@torch.no_grad()
def residual(solution: Solution, values: Sequence[float] | None = None) -> Residual:
    """max over theta of H(t, x, p, theta) - H(t, x, p, theta(t)), with states and costates of the solution.

    values: of a control that may only take these; by default its bounds are the set. The maximum is the best
    of a grid of every entry between its bounds, of all corners, and of Newton steps on H: exact where H is
    affine or concave in theta, else a lower bound.
    """
    if values is not None and not (values and all(map(isfinite, values))):
        raise ProblemError(f"residual: expected finite values of the control, at least one, found {values}")
    problem, per_sample = solution.discretization.problem, solution.discretization.control.per_sample
    t, x, p, theta = solution.middle
    if per_sample:
        x, p, theta, t = (each.flatten(0, 1).unsqueeze(1) for each in (x, p, theta, t))

    def value(own: Tensor, t: Tensor, x: Tensor, p: Tensor) -> Tensor:
        return problem.hamiltonian(t, x, p, own.expand(len(x), -1)).mean()

    own = theta[:, 0]
    at = vmap(value)(own, t, x, p)
    slope = vmap(grad(value))(own, t, x, p)
    best, most = own, at
    look = vmap(vmap(value, in_dims=(0, None, None, None)))
    for round_number in range(_ROUNDS):
        trials = (_grid(problem, best, values) if values is not None or round_number == 0
                  else _newton_steps(problem, value, best, t, x, p))
        found = look(trials, t, x, p)
        top, place = found.nan_to_num(-torch.inf).max(1)
        better = top > most
        best = torch.where(better.unsqueeze(1), trials[torch.arange(len(best)), place], best)
        most = torch.where(better, top, most)
    shape = (solution.discretization.intervals, -1) if per_sample else (solution.discretization.intervals,)
    return Residual(solution.middle[0][:, 0], (most - at).reshape(shape), slope.reshape(*shape, own.shape[1]),
                    at.reshape(shape), best.reshape(*shape, own.shape[1]))


def _grid(problem: ContinuousProblem, at: Tensor, values: Sequence[float] | None) -> Tensor:
    """The control with one entry moved, and all corners of few entries; (interval, trial, control)."""
    low, high = problem.box
    trials = [at]
    for entry in range(at.shape[1]):
        points = (torch.as_tensor(values).to(at) if values is not None
                  else torch.linspace(0, 1, _GRID).to(at) * (high[entry] - low[entry]) + low[entry])
        for point in points[points.isfinite()]:
            moved = at.clone()
            moved[:, entry] = point
            trials.append(moved)
    if values is None and bool((low.isfinite() & high.isfinite()).all()) and 1 < at.shape[1] <= 6:
        corners = torch.cartesian_prod(*torch.stack([low, high], 1))
        trials += [corner.expand_as(at) for corner in corners]
    return torch.stack(trials, 1)


def _newton_steps(problem: ContinuousProblem, value: Callable[..., Tensor], at: Tensor,
                  *data: Tensor) -> Tensor:
    """Newton's step on H, and its halves, within the bounds; where H is not concave, along its gradient."""
    load_rules()
    slope, bend = vmap(grad(value))(at, *data), vmap(hessian(value))(at, *data)
    values, vectors = torch.linalg.eigh(-bend)
    floor = 1e-8 * values.abs().amax(1, keepdim=True) + torch.finfo(at.dtype).tiny ** 0.5
    rotated = (vectors.mT @ slope.unsqueeze(-1)).squeeze(-1) / torch.maximum(values.abs(), floor)
    step = (vectors @ rotated.unsqueeze(-1)).squeeze(-1)
    return torch.stack([problem.admissible(at + 0.5 ** k * step) for k in range(_HALVINGS)], 1)
