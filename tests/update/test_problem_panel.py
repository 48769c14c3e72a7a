"""Seventy-two random problems: J never rises where a rule says so, and what solve calls converged is."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from builders import groups_of, normal, split_problem, tanh_problem
from pontryagin.hamiltonian import Penalties, augmented
from pontryagin.problem import (
    L1,
    Binary,
    Box,
    ControlProblem,
    CrossEntropy,
    EntryBox,
    Finite,
    KSparse,
    MatrixSet,
    NonNegative,
    Quadratic,
    RunningCost,
    SquaredError,
    Ternary,
    stage,
)
from pontryagin.problem.admissible import Admissible
from pontryagin.trajectory import StageGroup
from pontryagin.update import AcceptReject, ExtendedMSA, FromEstimate, PenaltyRule, PerStageEstimate

F64 = torch.float64
TOLERANCE = 1e-4


def layers(seed: int, *modules: nn.Module, cost: RunningCost | None = None, classes: int = 0,
           theta: MatrixSet | None = None, samples: int = 40) -> ControlProblem:
    """Modules with seeded weights, as stages, on normal inputs."""
    stages = []
    for n, module in enumerate(modules):
        with torch.no_grad():
            for k, parameter in enumerate(module.parameters()):
                parameter.copy_(normal(*parameter.shape, seed=1000 * seed + 10 * n + k, scale=0.5))
        has = any(True for _ in module.parameters())
        stages.append(stage(module, running_cost=cost if has else None, admissible=theta if has else None))
    x = normal(samples, modules[0].in_features, seed=seed + 7)  # type: ignore[arg-type]
    width = [module for module in modules if isinstance(module, nn.Linear)][-1].out_features
    if classes:
        return ControlProblem(stages, CrossEntropy(), x, (x[:, :1] * 3).long().abs().squeeze(1) % classes)
    return ControlProblem(stages, SquaredError(), x, normal(samples, width, seed=seed + 8))


def withered(seed: int, *modules: nn.Module, cost: RunningCost | None = None,
             theta: MatrixSet | None = None) -> ControlProblem:
    """As layers, with inputs that are constant, dead, and twice another."""
    problem = layers(seed, *modules, cost=cost, theta=theta)
    x = problem.initial_state.clone()
    x[:, 0], x[:, 1], x[:, 2] = 0.3, 0.0, 2 * x[:, 3]
    return replace(problem, initial_state=x)


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, dtype=F64)


def regulator(seed: int) -> ControlProblem:
    a, b = torch.eye(2, dtype=F64) + 0.2 * normal(2, 2, seed=seed), normal(2, 1, seed=seed + 1)

    def controlled(x: Tensor, theta: dict[str, Tensor]) -> Tensor:
        return x @ a.mT + theta["u"] @ b.mT

    stages = [stage(controlled, {"u": normal(1, seed=seed + 2)}, running_cost=Quadratic(0.5))
              for _ in range(4)]
    return ControlProblem(stages, SquaredError(), normal(3, 2, seed=seed + 3), normal(3, 2, seed=seed + 4))


def steered(seed: int, theta: Admissible) -> ControlProblem:
    """Three steps x + 0.4 tanh(u_0 x + u_1): not affine in the control, which lies in a set."""
    def step(x: Tensor, theta: dict[str, Tensor]) -> Tensor:
        return x + 0.4 * (theta["u"][0] * x + theta["u"][1]).tanh()

    stages = [stage(step, {"u": normal(2, seed=seed + n)}, admissible=theta) for n in range(3)]
    return ControlProblem(stages, SquaredError(), normal(10, 1, seed=seed + 5), normal(10, 1, seed=seed + 6))


KINDS: dict[str, Callable[[int], ControlProblem]] = {
    "linear": lambda seed: layers(seed, linear(4, 2)),
    "two linear": lambda seed: layers(seed, linear(3, 3), linear(3, 2), cost=Quadratic(0.05)),
    "network": lambda seed: layers(seed, linear(2, 4), nn.Tanh(), linear(4, 1), cost=Quadratic(0.01)),
    "classes": lambda seed: layers(seed, linear(3, 4), nn.Tanh(), linear(4, 3), cost=Quadratic(0.02),
                                   classes=3),
    "split": lambda seed: split_problem(seed=seed, cost=Quadratic(0.1)),
    "residual": lambda seed: tanh_problem(steps=2, width=2, seed=seed, cost=Quadratic(0.1)),
    "regulator": regulator,
    "box": lambda seed: layers(seed, linear(3, 2), theta=Box(-0.2, 0.3)),
    "non-negative": lambda seed: layers(seed, linear(3, 3), nn.Tanh(), linear(3, 1), theta=NonNegative()),
    "binary": lambda seed: layers(seed, linear(3, 2), nn.Tanh(), linear(2, 1), theta=Binary(0.5)),
    "ternary": lambda seed: layers(seed, linear(2, 2), linear(2, 1), theta=Ternary(0.5)),
    "switches": lambda seed: steered(seed, {"u": Finite((0, 1))}),
    "bounded": lambda seed: steered(seed, EntryBox((-0.5, 0.0), (0.5, 0.4))),
    "withered non-negative": lambda seed: withered(seed, linear(4, 3), nn.Tanh(), linear(3, 1),
                                                   theta=NonNegative()),
    "withered sparse": lambda seed: withered(seed, linear(4, 3), nn.ReLU(), linear(3, 1), cost=L1(0.2)),
    "withered few": lambda seed: withered(seed, linear(4, 2), theta=KSparse(2)),
    "withered linear": lambda seed: withered(seed, linear(4, 2)),
    "sparse": lambda seed: layers(seed, linear(4, 2), cost=L1(0.1)),
}
RULES: list[Callable[[], PenaltyRule]] = [AcceptReject, FromEstimate, PerStageEstimate, AcceptReject]
CONVERGING = {"linear", "box", "binary", "ternary", "regulator", "switches", "bounded"}
"""Where the tolerance is met within 40 iterations from at least one of the four seeds."""
SMOOTH = ("linear", "withered linear", "two linear", "network", "classes", "split", "residual", "regulator")


@pytest.mark.parametrize("kind", KINDS)
def test_panel(kind: str) -> None:
    converged = [solved(kind, seed) for seed in range(4)]
    assert any(converged) or kind not in CONVERGING


def solved(kind: str, seed: int) -> bool:
    """Whether 40 iterations converge, after checking what they promise."""
    problem = KINDS[kind](20 * seed)
    solver = ExtendedMSA(problem, penalty=RULES[seed]())
    found = solver.solve(40, tolerance=TOLERANCE)
    for record in found:
        assert record.objective_after <= record.objective_before
    assert problem.check_controls(solver.controls) == solver.controls
    if found.converged:
        assert promise(problem, solver, kind) <= 1.05 * TOLERANCE, found.ending.reason
    else:
        assert found.optimality_gap > TOLERANCE
        assert "the optimality gap at rho_state = 1" in found.ending.reason
    return found.converged


def promise(problem: ControlProblem, solver: ExtendedMSA, kind: str) -> float:
    """mu at rho_state = 1 by a way of its own: the dense Gauss-Newton form of H~ where it is smooth, all
    matrices of a discrete set with the best bias, and for other sets 300 points of the set near by."""
    total = 0.0
    for group in groups_of(problem, solver.controls):
        for n in range(len(group.indices)):
            total += (dense(group, n) if kind in SMOOTH else
                      enumerated(group, n) if kind in ("binary", "ternary") else sampled(group, n))
    return total


def dense(group: StageGroup, n: int) -> float:
    """Delta H of the maximum of G d - (1 + lambda) / 2 d^T M d, by a pseudo-inverse."""
    one, theta, (x, _, _, p) = group.stage, group.control[n], (part[n] for part in group.data)
    jacobian = torch.func.jacrev(lambda control: one(x, control))(theta).flatten(1, -2)
    image = one(x, theta)
    gradient = torch.func.grad(lambda control: (one(x, control) * p).flatten(1).sum(1).mean()
                               - one.cost(control))(theta)
    weight = one.step_size * one.running_cost.weight if isinstance(one.running_cost, Quadratic) else 0.0
    system = torch.einsum("sip,siq->pq", jacobian, jacobian) / len(x) + weight * torch.eye(len(theta),
                                                                                           dtype=F64)
    new = theta + torch.linalg.pinv(system, rtol=1e-9, hermitian=True) @ gradient
    return float(((one(x, new) - image) * p).flatten(1).sum(1).mean() - one.cost(new) + one.cost(theta))


def enumerated(group: StageGroup, n: int) -> float:
    """Over all matrices of the set; a bias is free and at its best."""
    data, old = tuple(part[n] for part in group.data), group.control[n]
    form = group.stage.affine
    assert form is not None
    _, rows, columns = form.shape
    values = {-0.5, 0.5} | ({0.0} if isinstance(group.stage.admissible.sets[0], Ternary) else set())
    best, gain = -torch.inf, 0.0
    x, _, _, p = data
    for entries in product(sorted(values), repeat=rows * columns):
        weight = torch.tensor(entries, dtype=F64).view(1, rows, columns)
        old_weight, old_bias = form.matrices(old.unsqueeze(0))
        bias = old_bias + p.mean(0) - (weight - old_weight)[0] @ x.mean(0)
        new = form.control(weight, bias)[0]
        value = float(augmented(group.stage, new, data, Penalties(1.0, 0.0)))  # type: ignore[arg-type]
        if value > best:
            best = value
            gain = float(((group.stage(x, new) - group.stage(x, old)) * p).sum(1).mean())
    return gain


def sampled(group: StageGroup, n: int) -> float:
    """No point of the set near by has a larger H~ than the controls by half the tolerance: 0, else what it
    has."""
    data, old, theta = tuple(part[n] for part in group.data), group.control[n], group.stage.admissible
    def value(control: Tensor) -> Tensor:
        return augmented(group.stage, control, data, Penalties(1.0, 0.0))  # type: ignore[arg-type]

    scales = 10.0 ** -(torch.arange(300, dtype=F64) % 4).unsqueeze(1)
    points = torch.stack([theta.project(one) for one in old + scales * normal(300, len(old))])
    return max(0.0, float(torch.vmap(value)(points).max() - value(old)))
