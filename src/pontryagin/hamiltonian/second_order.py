"""Dynamics to first and Hamiltonians to second order in states and controls, batched over equal stages.

z = (x_n, theta_n), flat, in this order; d of its entries are the state's. What is small is z: Jacobians are
(next state, z) and Hessians (z, z) for every stage and sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, hessian, jacfwd, vmap

from pontryagin.problem import ControlProblem, Controls, NoCost, Stage
from pontryagin.problem.forward_mode import load_rules

States = Sequence[Tensor]
Groups = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Linearized:
    """Along a trajectory: jacobians[n] (sample, next state, z) of g_n, costates[n] (sample, state) of x_0 ...
    x_N, and gradient, -dJ/dtheta of all stages in one vector: mean over samples of grad_theta H_n."""

    jacobians: tuple[Tensor, ...]
    costates: tuple[Tensor, ...]
    gradient: Float[Tensor, " control"]


def equal_stages(problem: ControlProblem) -> list[list[int]]:
    """All stages, with a control or without, those of one function and shape of states together."""
    groups: list[list[int]] = []
    for n, stage in enumerate(problem.stages):
        for group in groups:
            if problem.stages[group[0]].matches(stage) and (
                    problem.state_shapes[group[0]] == problem.state_shapes[n]):
                group.append(n)
                break
        else:
            groups.append([n])
    return groups


def linearize(problem: ControlProblem, groups: Groups, controls: Controls, states: States) -> Linearized:
    """Jacobians by forward mode, all stages of a group at once; then costates by N products with them.

    The costates are those of `propagate`: p_N = -grad Phi, p_n = (dg_n/dx)^T p_{n+1}.
    """
    load_rules()
    jacobians: list[Tensor] = [states[0]] * len(controls)
    for group in groups:
        stage, shape, z = _points(problem, group, controls, states)
        found = vmap(jacfwd(partial(_image, stage, shape)))(z)
        for n, each in zip(group, found.unflatten(0, (len(group), -1)).unbind(), strict=True):
            jacobians[n] = each
    costate = -vmap(grad(partial(_terminal, problem)))(states[-1].flatten(1), problem.target)
    costates, gradients = [costate], []
    for stage, jacobian in zip(reversed(problem.stages), reversed(jacobians), strict=True):
        pulled = (costate.unsqueeze(1) @ jacobian).squeeze(1)
        costate = pulled[:, :jacobian.shape[2] - stage.size]
        costates.append(costate)
        gradients.append(pulled[:, jacobian.shape[2] - stage.size:].mean(0))
    gradients.reverse()
    for group in groups:
        if (cost := _cost(problem.stages[group[0]])) is not None:
            slopes = vmap(grad(cost))(torch.stack([controls[n] for n in group]))
            for n, each in zip(group, slopes, strict=True):
                gradients[n] = gradients[n] - each
    return Linearized(tuple(jacobians), tuple(reversed(costates)), torch.cat(gradients))


def reduced_hessian(problem: ControlProblem, groups: Groups, controls: Controls, states: States,
                    linear: Linearized, convex: bool = False) -> Float[Tensor, "control control"]:
    """d^2 J / dtheta^2 in the controls of all stages, exactly: with dx_{n+1} = (dg_n/dz) dz_n along every
    direction,

        mean over samples of dx_N^T (d^2 Phi) dx_N - sum_n dz_n^T (d^2 H_n / dz^2) dz_n.

    convex: negative eigenvalues of every d^2 Phi and -d^2 H_n are left out.

    Dense: for up to some thousand entries of control.
    """
    load_rules()
    sizes = [stage.size for stage in problem.stages]
    total, samples = sum(sizes), problem.samples
    places = [sum(sizes[:n]) for n in range(len(sizes))]
    shaped = _positive_part if convex else _as_is
    tangents = _tangents(linear, sizes, places, total)
    curvature = shaped(vmap(hessian(partial(_terminal, problem)))(states[-1].flatten(1), problem.target))
    result = tangents[-1].flatten(0, 1).mT @ (curvature @ tangents[-1]).flatten(0, 1) / samples
    for group in groups:
        stage, shape, z = _points(problem, group, controls, states)
        p = torch.stack([linear.costates[n + 1] for n in group]).flatten(0, 1)
        curvature = shaped(-vmap(jacfwd(grad(partial(_paired, stage, shape))))(z, p))
        width, size = z.shape[1] - stage.size, stage.size
        along = torch.stack([tangents[n] for n in group]).flatten(0, 1)
        result += along.flatten(0, 1).mT @ (curvature[:, :width, :width] @ along).flatten(0, 1) / samples
        if not size:
            continue
        cross = (curvature[:, width:, :width] @ along).unflatten(0, (len(group), -1)).mean(1)
        own = curvature[:, width:, width:].unflatten(0, (len(group), -1)).mean(1)
        if (cost := _cost(stage)) is not None:
            own = own + vmap(hessian(cost))(torch.stack([controls[n] for n in group]))
        rows = torch.tensor([[places[n] + i for i in range(size)] for n in group], device=z.device)
        result[rows.flatten()] += cross.flatten(0, 1)
        result[:, rows.flatten()] += cross.flatten(0, 1).mT
        result[rows.unsqueeze(2), rows.unsqueeze(1)] += own
    return 0.5 * (result + result.mT)


def _points(problem: ControlProblem, group: Sequence[int], controls: Controls,
            states: States) -> tuple[Stage, torch.Size, Tensor]:
    """The function of a group, the shape of its states, and z of every stage and sample, (point, z)."""
    stage, x = problem.stages[group[0]], torch.stack([states[n] for n in group])
    theta = torch.stack([controls[n] for n in group]).to(x).unsqueeze(1).expand(-1, x.shape[1], -1)
    return stage, x.shape[2:], torch.cat([x.flatten(2), theta], 2).flatten(0, 1)


def _image(stage: Stage, shape: torch.Size, z: Tensor) -> Tensor:
    state = z[:shape.numel()].view(1, *shape)
    return stage(state, z[shape.numel():]).flatten()


def _paired(stage: Stage, shape: torch.Size, z: Tensor, p_next: Tensor) -> Tensor:
    """p . g(z)."""
    return _image(stage, shape, z) @ p_next


def _tangents(linear: Linearized, sizes: Sequence[int], places: Sequence[int], total: int) -> list[Tensor]:
    """dx_n / dtheta, (sample, state, control), of x_0 ... x_N."""
    first = linear.costates[0]
    tangent = first.new_zeros(*first.shape, total)
    tangents = [tangent]
    for jacobian, size, place in zip(linear.jacobians, sizes, places, strict=True):
        width = jacobian.shape[2] - size
        tangent = jacobian[:, :, :width] @ tangent
        tangent[:, :, place:place + size] += jacobian[:, :, width:]
        tangents.append(tangent)
    return tangents


def _terminal(problem: ControlProblem, x: Tensor, target: Tensor) -> Tensor:
    """Phi of one sample, its state flat."""
    return problem.terminal_cost(x.view(1, *problem.state_shapes[-1]), target.unsqueeze(0)).squeeze(0)


def _cost(stage: Stage) -> Callable[[Tensor], Tensor] | None:
    """delta L(theta), None where it is 0."""
    return stage.cost if stage.size and not isinstance(stage.running_cost, NoCost) else None


def _as_is(matrices: Tensor) -> Tensor:
    return matrices


def _positive_part(matrices: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(0.5 * (matrices + matrices.mT))
    positive = (vectors * values.clamp_min(0).unsqueeze(-2)) @ vectors.mT
    bent = (matrices != 0).any(-1)  # an entry without curvature, as the cost so far, may be huge: no rounding
    return positive * (bent.unsqueeze(-1) & bent.unsqueeze(-2))
