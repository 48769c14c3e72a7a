"""One Gauss-Newton step on the augmented Hamiltonian, whole or by output rows."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacfwd, jvp, vmap

from pontryagin.hamiltonian import Penalties, costate
from pontryagin.maximizer.gradient_ascent import hamiltonian_gradient
from pontryagin.maximizer.protocol import EvaluatedModel, require_unconstrained
from pontryagin.problem import NoCost, NoMaximumError, ProblemError, Quadratic
from pontryagin.problem.forward_mode import load_rules
from pontryagin.trajectory import StageGroup

Controls = Float[Tensor, "stage control"]
_TOGETHER = 2**22
"""Numbers of a Jacobian at once: samples beyond are taken in parts, so that memory does not grow with
them."""


@dataclass(frozen=True)
class GaussNewton:
    """theta + (rho_state M + rho_costate N + damping)^{-1} grad H, for any stage with a small control.

    M = mean J^T J with J = dg/dtheta, N = mean K^T K with K = d(grad_x H)/dtheta: H~ with H linearized and
    the penalties' curvature to first order, both penalties counted. p x p systems, p the length of the
    control. The step is halved until H~ does not fall.

    damping: > 0, relative to the mean diagonal of the system; 1e-3 makes systems of rank below p solvable and
    hardly shortens the others' steps. Raises ProblemError for other numbers and for stages with a set.
    Source: the Gauss-Newton method, applied to [LCTE] equation 24.
    """

    damping: float = 1e-3

    def __post_init__(self) -> None:
        if not (isfinite(self.damping) and self.damping > 0):
            raise ProblemError(f"damping: expected a finite number > 0, found {self.damping}")

    def model(self, group: StageGroup) -> "GaussNewtonModel":
        """Gradient and curvatures of all stages, once; ProblemError where the method cannot take them."""
        require_unconstrained(group, type(self).__name__)
        load_rules()
        return GaussNewtonModel(group, self.damping, self._curvature(group))

    def _curvature(self, group: StageGroup) -> "Parts":
        return _whole(group)


@dataclass(frozen=True)
class RowGaussNewton(GaussNewton):
    """The same by output rows: for stages with one weight (output, input) and one bias (output,), where the
    i-th output depends on the i-th row alone, as in x + delta tanh(W x + b).

    Then M falls apart into a system of size input + 1 for each row: cheap. The costate penalty, which
    couples the rows, is left out of the curvature (not out of H~, which still does not fall). damping: as
    there. Raises ProblemError for stages whose rows are coupled.
    """

    def _curvature(self, group: StageGroup) -> "Parts":
        return _by_rows(group)


Parts = tuple[Tensor, Tensor | None, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""M, N, and how controls fall into the blocks of M and are joined again."""
Push = Callable[[Tensor, Tensor, Tensor], Tensor]


class GaussNewtonModel(EvaluatedModel):
    """A quadratic model of H~ at the start, and a QuadraticModel. M and N: (stage, block, size, size)."""

    def __init__(self, group: StageGroup, damping: float, parts: Parts) -> None:
        super().__init__(group, evaluations=3)  # the gradient, and two in either curvature
        self.damping, self.gradient = damping, hamiltonian_gradient(group)
        self.state_curvature, self.costate_curvature, self._blocks, self._join = parts

    def maximize(self, penalties: Penalties) -> Controls:
        """The Gauss-Newton step, halved stage by stage until H~ is not lower than at the start."""
        change = self.solve(self.gradient, penalties)
        linear = isinstance(self.group.stage.running_cost, NoCost)
        if linear and not (penalties.step_scale or penalties.rho_costate):
            raise NoMaximumError(f"{self.group.stage.name}: GaussNewton needs a penalty or a quadratic "
                                 "running cost; with neither, its model of the Hamiltonian is linear and has "
                                 "no maximum")
        return self.ascending(change, penalties)

    def solve(self, gradient: Controls, penalties: Penalties) -> Controls:
        """The change of controls whose penalties balance this gradient, to first order in the dynamics."""
        system = penalties.rho_state * self.state_curvature
        if self.costate_curvature is not None:
            protects = penalties.rho_costate * self.group.protects(penalties.everywhere)
            system = system + protects[:, None, None, None] * self.costate_curvature
        cost = self.group.stage.running_cost
        weight = self.group.stage.step_size * cost.weight if isinstance(cost, Quadratic) else 0.0
        scale = system.diagonal(dim1=-2, dim2=-1).mean(-1)
        floor = torch.finfo(system.dtype).tiny ** 0.5
        # a system of zeros has a factor too
        shift = (self.damping * scale + weight + penalties.rho_control).clamp_min(floor)
        eye = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
        factor = torch.linalg.cholesky(system + shift[..., None, None] * eye)
        return self._join(torch.cholesky_solve(self._blocks(gradient).unsqueeze(-1), factor).squeeze(-1))


def _whole(group: StageGroup) -> Parts:
    stage = group.stage

    def state_jacobian(control: Tensor, x: Tensor) -> Tensor:
        return jacfwd(lambda theta: stage(x, theta))(control).flatten(1, -2)

    def costate_jacobian(control: Tensor, x: Tensor, p_next: Tensor) -> Tensor:
        return jacfwd(lambda theta: costate(stage, theta, x, p_next))(control).flatten(1, -2)

    def squared(jacobian: Tensor) -> Tensor:
        return torch.einsum("nsip,nsiq->npq", jacobian, jacobian).unsqueeze(1) / group.state.shape[1]

    numbers = group.start.numel() * max(group.states[0][:1].numel(), group.next_states[0][:1].numel())
    together = max(1, _TOGETHER // numbers)
    parts = list(zip(group.state.split(together, 1), group.next_costate.split(together, 1), strict=True))
    state = sum(squared(vmap(state_jacobian)(group.start, x)) for x, _ in parts)
    both = sum(squared(vmap(costate_jacobian)(group.start, x, p)) for x, p in parts)
    assert isinstance(state, Tensor)
    assert isinstance(both, Tensor)
    return state, both, lambda flat: flat.unsqueeze(1), lambda blocks: blocks.squeeze(1)


def _by_rows(group: StageGroup) -> Parts:
    rows, columns = _row_layout(group)
    stage, entries = group.stage, rows * columns

    def split(flat: Tensor) -> Tensor:
        weight = flat[..., :entries].unflatten(-1, (rows, columns))
        return torch.cat([weight, flat[..., entries:].unsqueeze(-1)], -1)

    def join(blocks: Tensor) -> Tensor:
        return torch.cat([blocks[..., :columns].flatten(-2), blocks[..., columns]], -1)

    def push(control: Tensor, x: Tensor, tangent: Tensor) -> Tensor:
        return jvp(lambda theta: stage(x, theta), (control,), (tangent,))[1]

    # Row i reacts to its own entries only, so one tangent that moves entry j of every row serves all rows.
    tangents = join(torch.eye(columns + 1, dtype=group.start.dtype, device=group.start.device)
                    .unsqueeze(1).expand(-1, rows, -1))
    over_entries = vmap(push, in_dims=(None, None, 0))
    jacobian = vmap(over_entries, in_dims=(0, 0, None))(group.start, group.state, tangents)
    _refuse_coupled_rows(group, jacobian[0, columns], join, push)
    # jacobian: (stage, entry, sample, row)
    state = torch.einsum("njsi,nksi->nijk", jacobian, jacobian) / group.state.shape[1]
    return state, None, split, join


def _row_layout(group: StageGroup) -> tuple[int, int]:
    shapes = [shape for _, shape in group.stage.layout]
    outputs = group.next_states[0].shape[1:]
    fits = (len(shapes) == 2 and len(shapes[0]) == 2 and shapes[1] == shapes[0][:1] and outputs == shapes[1])
    if not fits:
        raise ProblemError("RowGaussNewton needs a stage with weight (output, input), bias (output,) and "
                           f"next states (output,); {group.stage.name} has {shapes} and next states "
                           f"{tuple(outputs)}: use GaussNewton")
    return shapes[0][0], shapes[0][1]


def _refuse_coupled_rows(group: StageGroup, response: Tensor, join: Callable[[Tensor], Tensor],
                         push: Push) -> None:
    """The bias' tangent moves every output; scaled by rows, it scales uncoupled outputs alike."""
    rows, columns = _row_layout(group)
    # any numbers that differ; tolerances above the rounding of float32 products
    scales = torch.linspace(-1.0, 2.0, rows, dtype=response.dtype, device=response.device)
    blocks = torch.zeros(rows, columns + 1, dtype=response.dtype, device=response.device)
    blocks[:, columns] = scales
    scaled = push(group.start[0], group.states[0], join(blocks))
    if not torch.allclose(scaled, response * scales, rtol=1e-3, atol=1e-6 * float(response.abs().max())):
        raise ProblemError("RowGaussNewton needs outputs that depend on their own row of the weight alone, "
                           f"but those of {group.stage.name} are coupled: use GaussNewton")
