"""A stage x_{n+1} = g_n(x_n, theta_n): one layer, seen as one time step of a controlled system."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, prod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pontryagin.affine import AffineForm, form_of
from pontryagin.errors import ProblemError
from pontryagin.problem.admissible import (
    Admissible,
    AdmissibleSet,
    Layout,
    RealSpace,
    admissible_set,
    rows_by_name,
)
from pontryagin.problem.dynamics import Dynamics, ModuleDynamics
from pontryagin.problem.running_cost import NoCost, RunningCost


@dataclass(frozen=True, eq=False)
class Stage:
    """g(x, theta) with everything that the maximum principle has to know of it; `stage` makes one.

    dynamics: g(x, parameters), x of (sample, *state). start: the initial theta, one flat vector of length p;
    p = 0 is allowed: such a stage moves states and costates and has nothing to maximize. layout: names and
    shapes of the tensors that theta is made of, in order. step_size: delta, the weight of the running cost in
    J = mean_i Phi_i + sum_n delta_n L(theta_n). running_cost: L. admissible: Theta. affine: how g is affine
    in theta, None if it is not known to be. name: for messages and records.
    """

    dynamics: Dynamics
    start: Float[Tensor, " control"]
    layout: Layout = ()
    step_size: float = 1.0
    running_cost: RunningCost = field(default_factory=NoCost)
    admissible: AdmissibleSet = field(default_factory=RealSpace)
    affine: AffineForm | None = None
    name: str = "stage"

    def __post_init__(self) -> None:
        if not (isfinite(self.step_size) and self.step_size > 0):
            raise ProblemError(f"{self.name}: expected a finite step_size > 0, found {self.step_size}")
        if not isinstance(self.admissible, AdmissibleSet):
            raise ProblemError(f"{self.name}: expected an admissible set of whole controls such as "
                               f"RealSpace(), found {self.admissible!r}; sets of matrices go through "
                               "stage(..., admissible=...)")
        if not self.start.isfinite().all():
            raise ProblemError(f"{self.name}: the initial control holds NaN or infinite values")
        if sum(prod(shape) for _, shape in self.layout) != self.start.numel():
            raise ProblemError(f"{self.name}: the layout {self.layout} does not add up to a control of "
                               f"length {self.start.numel()}")
        if self.size and not self.admissible.contains(self.start).all():
            raise ProblemError(f"{self.name}: the initial control lies outside {self.admissible!r}; project "
                               "it first")

    def __call__(self, state: Shaped[Tensor, " sample *state"], control: Float[Tensor, " control"]) -> Tensor:
        """x_{n+1} = g(x_n, theta_n), one row a sample."""
        return self.dynamics(state, self.parameters(control))

    @property
    def size(self) -> int:
        """p, the length of the control."""
        return self.start.numel()

    @cached_property
    def _lengths(self) -> list[int]:
        return [prod(shape) for _, shape in self.layout]

    def parameters(self, control: Float[Tensor, "*stage control"]) -> dict[str, Tensor]:
        """The control as named tensors: views, not copies."""
        if not self.layout:
            return {}
        pieces = zip(self.layout, torch.split_with_sizes(control, self._lengths, -1), strict=True)
        return {name: piece.view(control.shape[:-1] + shape) for (name, shape), piece in pieces}

    def cost(self, control: Float[Tensor, "*stage control"]) -> Float[Tensor, "*stage"]:
        """delta L(theta), what the control adds to the objective."""
        return self.step_size * self.running_cost(control)

    def matches(self, other: "Stage") -> bool:
        """Whether both compute the same function of (x, theta) at the same cost: then they can be batched."""
        return (self.layout == other.layout and self.start.dtype == other.start.dtype
                and self.start.device == other.start.device and self.step_size == other.step_size
                and self.running_cost == other.running_cost and self.admissible == other.admissible
                and (self.affine is None) == (other.affine is None) and self.dynamics == other.dynamics)


def stage(
    dynamics: nn.Module | Dynamics,
    parameters: Mapping[str, Tensor] | None = None,
    *,
    step_size: float = 1.0,
    running_cost: RunningCost | None = None,
    admissible: Admissible | None = None,
    name: str | None = None,
) -> Stage:
    """A stage x_{n+1} = g(x_n, theta_n) from a torch module, or from a function and its initial parameters.

    dynamics: a module, whose parameters are the initial control (copied: the module itself is never changed),
        or a function g(x, parameters); x is (sample, *state), and each sample's result depends on it alone.
    parameters: of a function, initial values by name, any shapes; none: a stage without control.
    step_size: delta > 0, the weight of the running cost in J; 1 for a discrete network. `euler` sets it.
    running_cost: L(theta), none by default: Quadratic, L1, L0 or any RunningCost.
    admissible: Theta, R^p by default: a set of controls; or a set of matrices (Binary(), Box(-1, 1), ...), in
        which every parameter with two axes or more then lies while the others (biases) stay in R^p; or a
        mapping from names of parameters to sets of matrices. The initial control is the nearest point of it.
    name: in messages and records; by default the type of the module or the function's name.

    Raises ProblemError when the module couples samples (batch normalization in training mode), is random
    (dropout in training mode) or has parameters that are not floating point.
    Source: [LCTE] section 3.3: a layer is one time step of a controlled system.
    """
    rows = None
    if isinstance(dynamics, nn.Module):
        if parameters is not None:
            raise ProblemError("a module brings its own parameters; pass `parameters` only with a function")
        label, parameters = type(dynamics).__name__, dict(dynamics.named_parameters())
        function: Dynamics = ModuleDynamics(dynamics)
        rows = rows_by_name(dynamics)
    else:
        if not callable(dynamics):
            raise ProblemError(f"expected a torch module or a function g(x, theta), found {dynamics!r}")
        label, parameters = getattr(dynamics, "__name__", type(dynamics).__name__), parameters or {}
        function = dynamics
    start, layout = flatten(parameters)
    theta = admissible_set(name or label, layout, RealSpace() if admissible is None else admissible, rows)
    start = start if theta.unconstrained or not start.isfinite().all() else theta.project(start)
    affine = form_of(dynamics, layout) if isinstance(dynamics, nn.Module) else None
    return Stage(function, start, layout, step_size, running_cost or NoCost(), theta, affine, name or label)


def flatten(parameters: Mapping[str, Tensor]) -> tuple[Float[Tensor, " control"], Layout]:
    """Named tensors as one flat copy and the layout that undoes it."""
    for key, value in parameters.items():
        if not value.is_floating_point():
            raise ProblemError(f"parameter {key!r}: expected a floating-point tensor, found {value.dtype}")
    layout = tuple((key, value.shape) for key, value in parameters.items())
    if not parameters:
        return torch.empty(0), layout
    return torch.cat([value.detach().reshape(-1) for value in parameters.values()]), layout
