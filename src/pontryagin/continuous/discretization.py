"""A continuous problem as the stages of a ControlProblem: one an interval of its control's mesh."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.continuous.controls import Parametrization, PiecewiseConstant
from pontryagin.continuous.integrators import RK4, Integrator
from pontryagin.continuous.multipliers import Multipliers
from pontryagin.continuous.problem import ContinuousProblem, FreeTime
from pontryagin.problem import ControlProblem, Controls, EntryBox, ProblemError, Stage
from pontryagin.problem.dynamics import Parameters

Mesh = Float[Tensor, " node"]


def uniform(end: float, intervals: int) -> Mesh:
    """t_n = n end / intervals, float64."""
    if not isinstance(intervals, int) or intervals < 1:
        raise ProblemError(f"intervals: expected a whole number, at least one, found {intervals}")
    return torch.linspace(0.0, end, intervals + 1, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Discretization:
    """x' = f, its costs and constraints on a mesh, as a ControlProblem: all of its methods apply as they are.

    problem: what is solved. mesh: t_0 = 0 < t_1 ... < t_N = T, of any steps, where the control may change;
        with a free end time it is stretched. integrator: RK4 by default; substeps: its steps in an interval,
        so that states have a finer mesh than controls. control: PiecewiseConstant or PiecewiseLinear, shared
        or per sample.

    A stage is an interval, its state [x, cost so far, n, sample, T if free, theta(t_n) if continuous]: time
    is a state like any other, so all intervals compute the same function and are batched, whatever their
    steps. What only starts (T, theta(t_0)) is the control of a stage before the first interval. Costates of x
    are those of the discretized problem.
    """

    problem: ContinuousProblem
    mesh: Mesh
    integrator: Integrator = field(default_factory=RK4)
    substeps: int = 1
    control: Parametrization = field(default_factory=PiecewiseConstant)

    def __post_init__(self) -> None:
        mesh, end = torch.as_tensor(self.mesh, dtype=torch.float64), self.problem.first_end
        if mesh.ndim != 1 or len(mesh) < 2 or mesh[0] != 0 or not (mesh.diff() > 0).all():
            raise ProblemError("mesh: expected increasing nodes from 0, at least two, found "
                               f"{[float(node) for node in mesh.flatten()[:4]]} ...")
        if abs(float(mesh[-1]) - end) > 1e-6 * end:
            raise ProblemError(f"mesh: expected its last node at T = {end}, found {float(mesh[-1])}")
        if not isinstance(self.substeps, int) or self.substeps < 1:
            raise ProblemError(f"substeps: expected a whole number, at least one, found {self.substeps}")
        object.__setattr__(self, "mesh", mesh.to(self.problem.initial_state))

    @property
    def intervals(self) -> int:
        """N."""
        return len(self.mesh) - 1

    @property
    def free(self) -> bool:
        """Whether T is a control."""
        return isinstance(self.problem.end, FreeTime)

    @cached_property
    def leading(self) -> int:
        """1 where a stage before the first interval sets T or theta(t_0), else 0."""
        return int(self.free or self.control.continuous)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values of a control: (nodes, control), or (nodes, sample, control) of one per sample."""
        own = (self.problem.samples,) if self.control.per_sample else ()
        return (self.intervals + self.control.continuous, *own, self.problem.controls)

    def multipliers(self, rho: float) -> Multipliers:
        """Zeros, of the constraints that there are."""
        problem, x = self.problem, self.problem.initial_state
        theta = problem.admissible(x.new_zeros(len(x), problem.controls))
        end = 0 if problem.terminal_constraint is None else problem.terminal_constraint(x).shape[1]
        path = (0 if problem.path_constraint is None
                else problem.path_constraint(x.new_zeros(len(x)), x, theta).shape[1])
        return Multipliers(x.new_zeros(len(x), end), x.new_zeros(self.intervals, len(x), path), rho)

    def control_problem(self, multipliers: Multipliers | None = None) -> ControlProblem:
        """Its stages, with constraints as terms of the costs; without multipliers they are left out."""
        problem, x = self.problem, self.problem.initial_state
        if multipliers is None:
            multipliers = self.multipliers(0.0)
        start = self.controls(problem.admissible(x.new_zeros(self.shape)))
        low, high = (bound.expand(*self.shape[1:-1], -1).reshape(-1).tolist() for bound in problem.box)
        layout = (("theta", torch.Size(self.shape[1:])),)
        step = IntervalStep(self, multipliers)
        box = EntryBox(tuple(low), tuple(high))
        stages = [Stage(step, start[-1], layout, admissible=box, name=f"interval {n}")
                  for n in range(self.intervals)]
        if self.leading:
            first_low = (low if self.control.continuous else [])
            first_high = (high if self.control.continuous else [])
            first_layout = layout if self.control.continuous else ()
            if isinstance(problem.end, FreeTime):
                first_low, first_high = [problem.end.low, *first_low], [problem.end.high, *first_high]
                first_layout = (("end", torch.Size([1])), *first_layout)
            stages.insert(0, Stage(Start(self), start[0], first_layout, name="start",
                                   admissible=EntryBox(tuple(first_low), tuple(first_high))))
        zeros, number = x.new_zeros(len(x), 2), torch.arange(len(x)).to(x).unsqueeze(1)
        target = x.new_zeros(len(x)) if problem.target is None else problem.target
        return ControlProblem(stages, EndCost(self, multipliers), torch.cat([x, zeros, number], 1), target)

    def controls(self, values: Tensor, end: float | None = None) -> Controls:
        """The controls of the stages from values of `shape` and, where it is free, T.

        Raises ProblemError for other shapes.
        """
        if tuple(values.shape) != self.shape:
            raise ProblemError(f"expected control values of shape {self.shape}, found {tuple(values.shape)}")
        rows = list(values.to(self.mesh).flatten(1).unbind())
        first = [rows.pop(0)] if self.control.continuous else []
        if self.free:
            first.insert(0, self.mesh.new_tensor([self.problem.first_end if end is None else end]))
        return (*([torch.cat(first)] if first else []), *rows)

    def refined(self, values: Tensor, where: Tensor | None = None) -> tuple["Discretization", Tensor]:
        """With a node more in the middle of some intervals, and the values prolonged: the same theta(t).

        where: a mask (interval,), by default all; `residual(...).residual > threshold`, say.
        """
        split = torch.ones(self.intervals, dtype=torch.bool) if where is None else where
        if split.dtype != torch.bool or split.shape != (self.intervals,):
            raise ProblemError(f"refined: expected a mask of {self.intervals} intervals, found {split.dtype} "
                               f"of shape {tuple(split.shape)}")
        if tuple(values.shape) != self.shape:
            raise ProblemError(f"refined: expected control values of shape {self.shape}, found "
                               f"{tuple(values.shape)}")
        middles = (0.5 * (self.mesh[1:] + self.mesh[:-1]))[split]
        between = 0.5 * (values[1:] + values[:-1]) if self.control.continuous else values
        # a middle comes right after its interval's first node
        places = torch.cat([torch.arange(len(self.mesh)).to(self.mesh), split.nonzero().squeeze(1) + 0.5])
        order = places.argsort()
        mesh = torch.cat([self.mesh, middles])[order]
        if not self.control.continuous:  # a value an interval: none belongs to the last node
            order = order[order != self.intervals]
            order = order - (order > self.intervals).long()
        joined = torch.cat([values, between[split]])[order]
        return replace(self, mesh=mesh), joined

    def values(self, controls: Sequence[Tensor]) -> tuple[Tensor, float]:
        """The other way: values of `shape`, and T."""
        rows, end = list(controls), self.problem.first_end
        if self.leading:
            first = rows.pop(0)
            if self.free:
                end, first = float(first[0]), first[1:]
            rows = [first, *rows] if self.control.continuous else rows
        return torch.stack(rows).view(self.shape), end


@dataclass(frozen=True, eq=False)
class Start:
    """[x, cost, n, sample] -> [x, cost, n, sample, T if free, theta(t_0) if continuous]."""

    on: Discretization

    def __call__(self, state: Tensor, parameters: Parameters) -> Tensor:
        sample = state[:, self.on.problem.width + 2].long()
        more = [parameters["end"].expand(len(state), 1)] if self.on.free else []
        if self.on.control.continuous:
            more.append(_of_sample(parameters["theta"], sample, self.on))
        return torch.cat([state, *more], 1)


@dataclass(frozen=True, eq=False)
class IntervalStep:
    """From t_n to t_{n+1}; compared by identity, and the same for all intervals."""

    on: Discretization
    multipliers: Multipliers

    def __call__(self, state: Tensor, parameters: Parameters) -> Tensor:
        on, width = self.on, self.on.problem.width
        n, sample = state[:, width + 1].long(), state[:, width + 2].long()
        start, stop = on.mesh[n].unsqueeze(1), on.mesh[n + 1].unsqueeze(1)
        if on.free:
            scale = state[:, width + 3:width + 4] / on.problem.first_end
            start, stop = start * scale, stop * scale
        whole, last = stop - start, _of_sample(parameters["theta"], sample, on)
        first = state[:, state.shape[1] - on.problem.controls:] if on.control.continuous else last

        def right(t: Tensor, y: Tensor) -> Tensor:
            theta = first + (t - start) / whole * (last - first) if on.control.continuous else last
            return _with_cost(on.problem, t, y[:, :width], theta)

        t, y, step = start, state[:, :width + 1], whole / on.substeps
        for _ in range(on.substeps):
            y, t = on.integrator(right, t, y, step), t + step
        if on.problem.path_constraint is not None:
            value = on.problem.path_constraint(stop.squeeze(1), y[:, :width], last)
            term = self.multipliers.path_term(n, sample, value).unsqueeze(1)
            y = torch.cat([y[:, :width], y[:, width:] + whole * term], 1)
        kept = state[:, width + 2:width + 3 + on.free]
        return torch.cat([y, state[:, width + 1:width + 2] + 1, kept, *([last] if on.control.continuous
                                                                        else [])], 1)


@dataclass(frozen=True, eq=False)
class EndCost:
    """Phi(x(T)) + int L dt, and what the augmented Lagrangian adds."""

    on: Discretization
    multipliers: Multipliers

    def __call__(self, state: Tensor, target: Tensor) -> Float[Tensor, " sample"]:
        problem, width = self.on.problem, self.on.problem.width
        x, cost = state[:, :width], state[:, width]
        if problem.terminal_cost is not None:
            cost = cost + problem.terminal_cost(x, target)
        if problem.terminal_constraint is not None:
            sample = state[:, width + 2].long()
            cost = cost + self.multipliers.end_term(sample, problem.terminal_constraint(x))
        return cost


def _of_sample(theta: Tensor, sample: Tensor, on: Discretization) -> Float[Tensor, "sample control"]:
    """The control of every sample: its own, or the one of all."""
    return theta[sample] if on.control.per_sample else theta.expand(len(sample), -1)


def _with_cost(problem: ContinuousProblem, t: Tensor, x: Tensor, theta: Tensor) -> Tensor:
    """[f, L]."""
    time = t.squeeze(1)
    return torch.cat([problem.dynamics(time, x, theta), problem.lagrangian(time, x, theta).unsqueeze(1)], 1)
