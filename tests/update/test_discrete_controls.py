"""ExtendedMSA over admissible sets: controls stay inside, J never rises with AcceptReject, and good controls
are found."""

import pytest
import torch
from torch import nn

from builders import bend, normal, started
from pontryagin import ExtendedMSA
from pontryagin.hamiltonian import Penalties
from pontryagin.problem import (
    L0,
    L1,
    Binary,
    Box,
    Codebook,
    ControlProblem,
    KSparse,
    MatrixSet,
    RunningCost,
    SquaredError,
    Ternary,
    TwoFourSparse,
    UnitNormRows,
    split_euler,
    stage,
)
from pontryagin.update import AcceptReject, Fixed, Plain

CASES: list[tuple[MatrixSet, RunningCost | None]] = [
    (Binary(0.5), None), (Binary("row"), L1(0.01)), (Ternary(0.5), L0(0.01)), (Codebook(3), None),
    (Box(-0.4, 0.4), L1(0.02)), (KSparse(2), None), (TwoFourSparse(), None), (UnitNormRows(), None),
]


def problem(theta: MatrixSet, cost: RunningCost | None = None) -> ControlProblem:
    """A network of two hidden stages; the data come from one with binary weights."""
    torch.manual_seed(3)
    stages = []
    for outputs in (4, 4, 2):
        stages += [stage(nn.Linear(4, outputs, dtype=torch.float64), admissible=theta, running_cost=cost),
                   stage(bend)]
    x = normal(30, 4, seed=1)
    y = (x @ normal(4, 4, seed=2).sign().T * 0.5).sin() @ normal(4, 2, seed=4).sign()
    return ControlProblem(stages[:-1], SquaredError(), x, y)


@pytest.mark.parametrize(("theta", "cost"), CASES, ids=str)
def test_the_objective_never_rises(theta: MatrixSet, cost: RunningCost | None) -> None:
    solver = ExtendedMSA(problem(theta, cost), penalty=AcceptReject())
    objective, first = None, None
    for record in solver.iterate(10):
        assert objective is None or record.objective_before == pytest.approx(objective, abs=1e-12)
        assert record.objective_after <= record.objective_before + 1e-12
        objective, first = record.objective_after, first or record.objective_before
        solver.problem.check_controls(solver.controls)
    assert objective is not None
    assert first is not None
    assert objective < 0.9 * first


def test_split_steps_over_a_codebook() -> None:
    stages = [started(one, seed=n, scale=0.3)
              for n, one in enumerate(split_euler(torch.tanh, 3, 0.5, 3, dtype=torch.float64))]
    inside = []
    for one in stages:
        if one.affine is None:
            inside.append(one)
            continue
        theta = split_euler(torch.tanh, 3, 0.5, 1, dtype=torch.float64, admissible=Codebook(4))[0].admissible
        inside.append(type(one)(one.dynamics, theta.project(one.start), one.layout, admissible=theta,
                                affine=one.affine))
    one = ControlProblem(inside, SquaredError(), normal(12, 3, seed=5), normal(12, 3, seed=6))
    records = ExtendedMSA(one).solve(10)
    assert records[-1].objective_after < records[0].objective_before


def test_the_basic_principle_takes_every_argmax() -> None:
    """Algorithm 1 on a single stage over {-1, 1} without biases: one step to where the Hamiltonian's gradient
    points."""
    linear = nn.Linear(4, 2, bias=False, dtype=torch.float64)
    x = normal(30, 4, seed=1)
    y = x @ normal(4, 2, seed=4).sign()
    one = ControlProblem([stage(linear, admissible=Binary())], SquaredError(), x, y)
    solver = ExtendedMSA(one, penalty=Fixed(Penalties(0.0, 0.0)), acceleration=Plain())
    record = solver.step()
    assert record.optimality_gap >= 0
    assert one.stages[0].admissible.contains(solver.controls[0])
