"""A control problem in continuous time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.problem import NonFiniteError, ProblemError, TerminalCost

Times = Float[Tensor, " sample"]
States = Float[Tensor, "sample state"]
Values = Float[Tensor, "sample control"]
Dynamics = Callable[[Times, States, Values], States]
"""f(t, x, theta)."""
RunningCost = Callable[[Times, States, Values], Float[Tensor, " sample"]]
"""L(t, x, theta)."""
PathConstraint = Callable[[Times, States, Values], Float[Tensor, "sample constraint"]]
TerminalConstraint = Callable[[States], Float[Tensor, "sample constraint"]]
Bound = float | Sequence[float]
"""Of all entries of the control, or one for each."""


@dataclass(frozen=True)
class FreeTime:
    """An end time T that is a control too: low <= T <= high, from `start`."""

    start: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low <= self.start <= self.high and isfinite(self.high)):
            raise ProblemError("FreeTime: expected 0 < low <= start <= high, all finite, found "
                               f"low={self.low}, start={self.start}, high={self.high}")


@dataclass(frozen=True, eq=False)
class ContinuousProblem:
    """Minimize over theta(t), low <= theta <= high, and over T where it is free,

        J = mean over samples of Phi(x(T)) + int_0^T L(t, x, theta) dt,   dx/dt = f(t, x, theta), x(0) given,

    subject to end(x(T)) = 0 and path(t, x, theta) <= 0. ([LCTE] equation 3, with costs and constraints of the
    states.)

    dynamics, running_cost, path_constraint: functions of t (sample,), x (sample, state) and theta (sample,
        control); each sample's result depends on it alone. terminal_cost: Phi(x, target), as of a
        ControlProblem. terminal_constraint: of x (sample, state).
    controls: the number of entries of theta. bounds: low and high, each a number or one for every entry.
    end: T, or FreeTime. target: what Phi takes, by default zeros.
    """

    dynamics: Dynamics
    initial_state: States
    controls: int
    end: float | FreeTime
    running_cost: RunningCost | None = None
    terminal_cost: TerminalCost | None = None
    bounds: tuple[Bound, Bound] | None = None
    terminal_constraint: TerminalConstraint | None = None
    path_constraint: PathConstraint | None = None
    target: Tensor | None = None

    def __post_init__(self) -> None:
        x = self.initial_state
        if x.ndim != 2 or x.dtype not in (torch.float32, torch.float64) or not len(x):
            raise ProblemError("initial_state: expected one or more states (sample, state) of float64 or "
                               f"float32, found {tuple(x.shape)} of {x.dtype}")
        if not x.isfinite().all():
            raise NonFiniteError("the initial state holds NaN or infinite values")
        if self.controls < 1:
            raise ProblemError(f"controls: expected at least one entry, found {self.controls}")
        if not isinstance(self.end, FreeTime) and not (isfinite(self.end) and self.end > 0):
            raise ProblemError(f"end: expected a finite time > 0 or FreeTime, found {self.end}")
        if self.bounds is not None and len(self.bounds) != 2:
            raise ProblemError(f"bounds: expected (low, high), found {self.bounds}")
        low, high = self.box
        if not (low <= high).all():
            raise ProblemError(f"bounds: expected low <= high, found {self.bounds}")
        t, theta = x.new_zeros(len(x)), self.admissible(x.new_zeros(len(x), self.controls))
        _check("dynamics", self.dynamics, (t, x, theta), (len(x), self.width))
        _check("running_cost", self.running_cost, (t, x, theta), (len(x),))
        _check("path_constraint", self.path_constraint, (t, x, theta), (len(x), None))
        _check("terminal_constraint", self.terminal_constraint, (x,), (len(x), None))

    @property
    def box(self) -> tuple[Float[Tensor, " control"], Float[Tensor, " control"]]:
        """low and high of every entry, infinite without bounds."""
        low, high = self.bounds or (-torch.inf, torch.inf)
        like, shape = self.initial_state, (self.controls,)
        return (torch.as_tensor(low, dtype=like.dtype, device=like.device).expand(shape),
                torch.as_tensor(high, dtype=like.dtype, device=like.device).expand(shape))

    def admissible(self, theta: Float[Tensor, "*any control"]) -> Float[Tensor, "*any control"]:
        """The nearest control within the bounds."""
        return theta.clamp(*self.box)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.initial_state)

    @property
    def width(self) -> int:
        """The length of a state."""
        return self.initial_state.shape[1]

    @property
    def first_end(self) -> float:
        """T, or where it starts from."""
        return self.end.start if isinstance(self.end, FreeTime) else self.end

    @property
    def constrained(self) -> bool:
        """Whether there are constraints beside the bounds."""
        return self.terminal_constraint is not None or self.path_constraint is not None

    def lagrangian(self, t: Times, x: States, theta: Values) -> Float[Tensor, " sample"]:
        """L(t, x, theta)."""
        return x.new_zeros(len(x)) if self.running_cost is None else self.running_cost(t, x, theta)

    def hamiltonian(self, t: Times, x: States, costate: States, theta: Values) -> Float[Tensor, " sample"]:
        """H(t, x, p, theta) = p . f(t, x, theta) - L(t, x, theta), of each sample."""
        return (costate * self.dynamics(t, x, theta)).sum(-1) - self.lagrangian(t, x, theta)


def _check(name: str, function: Callable[..., Tensor] | None, given: tuple[Tensor, ...],
           expected: tuple[int | None, ...]) -> None:
    """ProblemError where what the function gives is no tensor of that shape; None: any number."""
    if function is None:
        return
    found = function(*given)
    shape = tuple(found.shape) if isinstance(found, Tensor) else None
    if shape is None or len(shape) != len(expected) or any(
            want not in (size, None) for size, want in zip(shape, expected, strict=True)):
        wanted = str(expected).replace("None", "constraint")
        taken = ", ".join(str(tuple(each.shape)) for each in given)
        raise ProblemError(f"{name}: for arguments of shapes {taken} expected a tensor of shape {wanted}, "
                           f"found {type(found).__name__ if shape is None else shape}")
