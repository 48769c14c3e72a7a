"""Solutions of a continuous problem: controls, states and costates over t."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.continuous.discretization import Discretization
from pontryagin.problem import ControlProblem, Controls, ProblemError
from pontryagin.trajectory import propagate, terminal_costs
from pontryagin.update import NewtonMSA

Minimizer = Callable[[ControlProblem, Controls], tuple[Controls, int]]
"""Lower J from these controls: the controls found, and the iterations."""

_ITERATIONS = 300
"""Of NewtonMSA between two updates of multipliers: the problems of `reproduce control` take 40 at most."""


@dataclass(frozen=True)
class Solution:
    """controls: of the stages; values: of theta, of the discretization's shape; end: T. t: the nodes. states,
    costates: (node, sample, state). objective: J without penalty terms. violation: the largest violation of a
    constraint. iterations: of the minimizer, over all multipliers. multiplier_updates: their number."""

    discretization: Discretization
    controls: Controls
    values: Tensor
    end: float
    t: Float[Tensor, " node"]
    states: Float[Tensor, "node sample state"]
    costates: Float[Tensor, "node sample state"]
    objective: float
    violation: float
    iterations: int
    multiplier_updates: int
    path_multipliers: Float[Tensor, "interval sample constraint"]

    @property
    def middle(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """t, x, p, theta in the middles of the intervals, (interval, sample, *): of second order."""
        samples, t, theta = self.states.shape[1], self.t, self.values
        if not self.discretization.control.per_sample:
            theta = theta.unsqueeze(1).expand(-1, samples, -1)
        if self.discretization.control.continuous:
            theta = 0.5 * (theta[1:] + theta[:-1])
        x, p = (0.5 * (each[1:] + each[:-1]) for each in (self.states, self.costates))
        return 0.5 * (t[1:] + t[:-1]).unsqueeze(1).expand(-1, samples), x, p, theta


def solve(discretization: Discretization, values: Tensor | float = 0.0, *, minimizer: Minimizer | None = None,
          rho: float = 100.0, tolerance: float | None = None, updates: int = 30) -> Solution:
    """Minimize J from a start; with constraints, an augmented Lagrangian between whose minimizations the
    multipliers are updated, until no constraint is violated by more than `tolerance`, by default 1e-9, and
    1e-5 in float32.

    values: of theta, of `discretization.shape` or a number for all. minimizer: by default NewtonMSA, to the
    end. rho: the first penalty > 0, in units of J / constraint^2; it grows tenfold where an update does not
    lower the violation a hundred times. Raises ProblemError where `updates` do not reach the tolerance.
    """
    if tolerance is None:
        tolerance = 1e-9 if discretization.mesh.dtype == torch.float64 else 1e-5
    if not (rho > 0 and tolerance >= 0):
        raise ProblemError(f"solve: expected rho > 0 and tolerance >= 0, found {rho} and {tolerance}")
    problem = discretization.problem
    controls = discretization.controls(problem.admissible(_started(discretization, values)))
    multipliers = discretization.multipliers(rho)
    stages = discretization.control_problem(multipliers)
    minimizer, iterations, before = minimizer or newton, 0, float("inf")
    for update in range(updates + 1):
        controls, more = minimizer(stages, controls)
        iterations += more
        solution = solution_at(discretization, stages, controls)
        end, path = _constraints(solution)
        violation = multipliers.violation(end, path)
        if violation <= tolerance:
            plain = discretization.control_problem() if problem.constrained else stages
            return replace(solution, objective=float(terminal_costs(plain, controls).mean()),
                           violation=violation, iterations=iterations, multiplier_updates=update,
                           path_multipliers=multipliers.path)
        multipliers.update(end, path)
        if violation > 0.01 * before:
            multipliers.rho *= 10
        before = violation
    raise ProblemError(f"after {updates} updates of the multipliers a constraint is still violated by "
                       f"{violation:.2g}, more than {tolerance:g}; it may have no solution, or use a larger "
                       "rho")


def _started(on: Discretization, values: Tensor | float) -> Tensor:
    """The values of a start, of on.shape."""
    start = torch.as_tensor(values, dtype=on.problem.initial_state.dtype)
    if (start.ndim and start.shape != on.shape) or not start.isfinite().all():
        raise ProblemError(f"solve: expected a finite number to start from, or finite values of shape "
                           f"{on.shape}, found {tuple(start.shape) if start.ndim else values}")
    return start.expand(on.shape)


def newton(problem: ControlProblem, controls: Controls) -> tuple[Controls, int]:
    """NewtonMSA, until it promises no more. Raises ProblemError where it does not come to that."""
    solver = NewtonMSA(problem, controls)
    records = solver.solve(_ITERATIONS)
    if not solver.converged:
        last = records[-1]
        raise ProblemError(f"J = {last.objective_after:.6g} may still fall by {last.optimality_gap:.2g} "
                           f"after {len(records)} iterations of NewtonMSA: use a smaller rho where "
                           "constraints are much stiffer than costs, another start, or a minimizer of your "
                           "own")
    return solver.controls, len(records)


def solution_at(discretization: Discretization, stages: ControlProblem, controls: Controls) -> Solution:
    """States, costates and J at controls, `stages` being `discretization.control_problem(...)`."""
    trajectory, width = propagate(stages, controls), discretization.problem.width
    first = discretization.leading
    states = torch.stack([x[:, :width] for x in trajectory.states[first:]])
    costates = torch.stack([p[:, :width] for p in trajectory.costates[first:]])
    values, end = discretization.values(controls)
    return Solution(discretization, controls, values, end,
                    discretization.mesh * (end / discretization.problem.first_end), states, costates,
                    float(trajectory.terminal.mean()), 0.0, 0, 0, states.new_zeros(0))


@torch.no_grad()
def _constraints(solution: Solution) -> tuple[Tensor, Tensor]:
    """end(x(T)), and path at t_1 ... t_N."""
    on = solution.discretization
    problem, samples = on.problem, on.problem.samples
    end = path = solution.states.new_zeros(0)
    if problem.terminal_constraint is not None:
        end = problem.terminal_constraint(solution.states[-1])
    if problem.path_constraint is not None:
        theta = solution.values[1:] if on.control.continuous else solution.values
        theta = theta if on.control.per_sample else theta.unsqueeze(1).expand(-1, samples, -1)
        t = solution.t[1:].unsqueeze(1).expand(-1, samples)
        flat = problem.path_constraint(t.flatten(), solution.states[1:].flatten(0, 1), theta.flatten(0, 1))
        path = flat.unflatten(0, (on.intervals, samples))
    return end, path
