"""Newton's method on the maximum principle: the argmax of all stages together, to second order."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from time import perf_counter

import torch
from torch import Tensor

from pontryagin.hamiltonian.second_order import Linearized, equal_stages, linearize, reduced_hessian
from pontryagin.maximizer.box_quadratic import minimize_in_box
from pontryagin.maximizer.grid_search import entry_sets
from pontryagin.problem import ControlProblem, Controls, NonFiniteError, ProblemError

_GROW, _SHRINK = (3.0, 100.0), 0.1
"""Of the penalty after a rejection and after a good step: a few trials span the decades between."""
_GOOD, _POOR = 0.75, 0.25
"""Shares of the predicted decrease above which the penalty shrinks and below which it grows, as trust regions
have them (Nocedal and Wright, Algorithm 4.1)."""
_ROUNDING = 50
"""Roundings of the unit of J + |J|: a predicted decrease below them cannot be told from rounding."""
_REACH = 10.0
"""Times 1 + |theta|: a step along which the model has no curvature is about as long as that at most."""
_ENDLESS = 1e15
"""Times 1 + the size that it, or a state, had at the start: where controls, or J below zero, are that large
and a gain is still promised, nothing is best."""
_STATIONARY = 1e-10
"""Of the unit of J + |J|: where no more is promised, the gradient says nothing and negative curvature is
looked for."""
_ESCAPES = (1.0, -1.0, 0.1, -0.1, 1e-2, -1e-2, 1e-3, -1e-3)
"""Times 1 + |theta|, along a direction of negative curvature, which has no length of its own."""


@dataclass(frozen=True)
class NewtonRecord:
    """One iteration. predicted: the decrease of J that the quadratic model promised for the last trial.
    optimality_gap: what it promises without a penalty: the Newton decrement over the box; where that is 0 at
    a saddle, by how much J fell along negative curvature. penalty: rho of
    |theta - theta_old|^2 in the last trial. evaluations: passes through all stages, of first and of second
    derivatives too."""

    iteration: int
    objective_before: float
    objective_after: float
    predicted: float
    optimality_gap: float
    penalty: float
    accepted: bool
    rejected: int
    evaluations: int
    seconds: float


class NewtonMSA:
    """Maximizes all Hamiltonians together, states and costates following to first order:

        theta <- argmin over Theta of -sum_n mean <grad H_n, d> + 1/2 d^T (d^2 J) d + rho/2 |d|^2,

    where d^2 J comes from the second derivatives of every H_n along the linearized dynamics
    (hamiltonian.second_order). The state and costate penalties of extended MSA stand for this curvature when
    it is not known; the rest, the sequential quadratic Hamiltonian penalty, is 0 near a solution and grows
    until J falls by a share of what was predicted. A linear-quadratic problem needs one iteration.

    problem: smooth stages, their sets R^p or an interval for each entry (EntryBox, Box). Small: all controls
        together up to some hundred entries, since d^2 J is dense. controls: to start from, by default the
        problem's.

    Where d^2 J is not positive definite, negative eigenvalues of every -d^2 H_n and d^2 Phi are left out; at
    a saddle or a maximum a direction of negative curvature is tried.

    Raises ProblemError for other sets and controls that do not fit, and where the controls run to infinity
    because J has no minimum; NonFiniteError where J is not finite at the first controls, or derivatives are
    not at later ones. J never rises.
    Source: Newton's method by a second costate pass (Dunn and Bertsekas 1989); penalty: Breitenbach and Borzi
    2019.
    """

    def __init__(self, problem: ControlProblem, controls: Sequence[Tensor] | None = None) -> None:
        self.problem = problem
        self.controls = problem.check_controls(problem.initial_controls() if controls is None else controls)
        self.iteration, self.penalty, self._unit, self.converged = 0, 0.0, 0.0, False
        self._groups, (self._low, self._high) = equal_stages(problem), entry_bounds(problem)
        self._reached: tuple[float, list[Tensor]] | None = None
        self._rounding = _ROUNDING * torch.finfo(self._low.dtype).eps
        self._endless = (_ENDLESS * (1 + _largest(torch.cat(self.controls))), inf)

    @torch.no_grad()  # dynamics may be a network, whose weights are no controls here
    def step(self) -> NewtonRecord:
        """One iteration."""
        began = perf_counter()
        if self._reached is None:
            self._reached = self._propagate(self.controls)
            if not isfinite(self._reached[0]):
                raise NonFiniteError("J is not finite at the first controls: start from smaller ones, or use "
                                     "a finer mesh")
            largest = max(map(_largest, self._reached[1]))  # controls may be as large as states are
            self._endless = (max(self._endless[0], _ENDLESS * largest),
                             _ENDLESS * (1 + abs(self._reached[0])))
        before, states = self._reached
        linear = linearize(self.problem, self._groups, self.controls, states)
        flat = torch.cat(self.controls)
        exact = reduced_hessian(self.problem, self._groups, self.controls, states, linear)
        if not (linear.gradient.isfinite().all() and exact.isfinite().all()):
            raise NonFiniteError(f"iteration {self.iteration + 1}: J = {before:.6g} is finite, but not its "
                                 "derivatives in the controls; bound the controls away from where costs or "
                                 "dynamics have none")
        hessian = self._definite(exact, states, linear)
        gap = self._predicted(linear, hessian, self._argmin(linear, hessian, flat, 0.0))
        scale = float(hessian.diagonal().abs().mean())
        accepted, rejected, after = False, 0, before
        self._unit = min(1.0, max(self._unit, abs(before) + gap + scale))
        least = self._rounding * (self._unit + abs(before))
        while not accepted and rejected < 30:
            move = self._argmin(linear, hessian, flat, self.penalty * scale)
            predicted = self._predicted(linear, hessian, move)
            trial = tuple((flat + move).clamp(self._low, self._high)
                          .split([stage.size for stage in self.problem.stages]))
            found, reached = self._propagate(trial)
            achieved = before - found if isfinite(found) else -inf
            accepted = achieved > 1e-3 * predicted or (predicted <= least and achieved >= -least)
            if accepted:
                self._reached, self.controls, after = (found, reached), trial, found
                if achieved > _GOOD * predicted or predicted <= least:
                    self.penalty = self.penalty * _SHRINK if self.penalty > 1e-8 else 0.0
            if not accepted or (achieved < _POOR * predicted and predicted > least):
                factor = 2 * (predicted - achieved) / predicted if predicted > 0 else _GROW[1]
                self.penalty = max(self.penalty * min(max(factor, _GROW[0]), _GROW[1]), 1e-3)
            rejected += not accepted
            if not accepted and predicted <= least:
                break
        escapes = 0
        if gap <= _STATIONARY * (self._unit + abs(before)) and hessian is not exact:
            gap, escapes = self._escape(after, exact)
            accepted, after = accepted or gap > 0, after - gap
        self.iteration += 1
        self._check_end(after)
        return NewtonRecord(self.iteration, before, after, predicted, gap, self.penalty, accepted, rejected,
                            3 + rejected + escapes, perf_counter() - began)

    def solve(self, iterations: int = 100, tolerance: float = 1e-12) -> list[NewtonRecord]:
        """Iterate until the decrease still promised is at most tolerance * (unit + |J|), or hidden by
        rounding, before the step that it is promised for, or nothing is accepted. J is bounded below. unit:
        1, or where J, the decreases promised and the curvature have all been smaller, their largest sum.
        `converged` says whether that was before the iterations were used up."""
        records: list[NewtonRecord] = []
        self.converged = False
        while len(records) < iterations and not self.converged:
            records.append(self.step())
            last = records[-1]
            least = max(tolerance, self._rounding) * (self._unit + abs(last.objective_after))
            self.converged = not last.accepted or last.optimality_gap <= least
        return records

    def _propagate(self, controls: Controls) -> tuple[float, list[Tensor]]:
        states = [self.problem.initial_state]
        for stage, control in zip(self.problem.stages, controls, strict=True):
            states.append(stage(states[-1], control))
        terminal = self.problem.terminal_cost(states[-1], self.problem.target).mean()
        return float(terminal + self.problem.running_cost(controls)), states

    def _check_end(self, objective: float) -> None:
        """That there may be a minimum."""
        largest = _largest(torch.cat(self.controls))
        if largest > self._endless[0] or objective < -self._endless[1]:
            raise ProblemError(f"iteration {self.iteration}: J = {objective:.6g} with controls up to "
                               f"{largest:.1g}, and falling: it seems to have no minimum; bound the "
                               "controls, or add a running cost that grows with them")

    def _definite(self, exact: Tensor, states: list[Tensor], linear: Linearized) -> Tensor:
        """d^2 J, or what is left of it without negative curvature of a stage, made definite."""
        if not torch.linalg.cholesky_ex(exact)[1]:
            return exact
        convex = reduced_hessian(self.problem, self._groups, self.controls, states, linear, convex=True)
        flat = torch.cat(self.controls)
        reach = _REACH * (1 + _largest(flat))
        room = torch.where(linear.gradient > 0, self._high - flat, flat - self._low)
        floor = max(1e-9 * float(convex.diagonal().mean()), _largest(linear.gradient[room > 0]) / reach,
                    torch.finfo(convex.dtype).tiny ** 0.5)
        eye = torch.eye(len(convex)).to(convex)
        while torch.linalg.cholesky_ex(convex + floor * eye)[1]:
            floor *= 10
        return convex + floor * eye

    def _escape(self, before: float, exact: Tensor) -> tuple[float, int]:
        """From where the gradient vanishes along the most negative curvature of the entries that can move
        both ways: by how much J fell, and the trials."""
        flat = torch.cat(self.controls)
        free = (flat > self._low) & (flat < self._high)
        if not free.any():
            return 0.0, 0
        values, vectors = torch.linalg.eigh(exact[free][:, free])
        if float(values[0]) >= -self._rounding * float(values.abs().max()):
            return 0.0, 0
        direction = torch.zeros_like(flat)
        direction[free] = vectors[:, 0]
        for number, length in enumerate(_ESCAPES, 1):
            trial = (flat + length * (1 + _largest(flat)) * direction).clamp(self._low, self._high)
            controls = trial.split([stage.size for stage in self.problem.stages])
            found, reached = self._propagate(controls)
            if isfinite(found) and before - found > self._rounding * (self._unit + abs(before)):
                self._reached, self.controls = (found, reached), controls
                return before - found, number
        return 0.0, len(_ESCAPES)

    def _argmin(self, linear: Linearized, hessian: Tensor, flat: Tensor, shift: float) -> Tensor:
        system = hessian + shift * torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
        return minimize_in_box(-linear.gradient, system, self._low - flat, self._high - flat)

    def _predicted(self, linear: Linearized, hessian: Tensor, move: Tensor) -> float:
        return float(linear.gradient @ move - 0.5 * move @ (hessian @ move))


def entry_bounds(problem: ControlProblem) -> tuple[Tensor, Tensor]:
    """low and high of all entries of all controls, in order. Raises ProblemError for sets without them."""
    low, high = [], []
    for stage in problem.stages:
        sets = entry_sets(stage)
        if sets is None or any(one.values for one in sets):
            raise ProblemError(f"expected R^p or an interval for each entry, but {stage.name} has "
                               f"{stage.admissible!r}; use ExtendedMSA with a maximizer made for that set")
        low.append(stage.start.new_tensor([one.low for one in sets]))
        high.append(stage.start.new_tensor([one.high for one in sets]))
    return torch.cat(low), torch.cat(high)


def _largest(values: Tensor) -> float:
    """The largest size of an entry, 0 of none."""
    return float(values.abs().amax()) if values.numel() else 0.0
