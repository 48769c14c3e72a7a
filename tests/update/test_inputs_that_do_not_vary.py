"""The optimality gap of stages whose inputs are constant, dead or dependent, and where H has no maximum."""

import re
from dataclasses import replace
from math import inf

import pytest
import torch
from torch import Tensor, nn

from builders import normal, tanh_problem
from pontryagin.affine import StageMoments, merge_moments
from pontryagin.affine.stage_moments import settled
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import ClosedForm
from pontryagin.problem import (
    L0,
    L1,
    Box,
    ControlProblem,
    KSparse,
    MatrixSet,
    NoMaximumError,
    NonNegative,
    Quadratic,
    RunningCost,
    SquaredError,
    stage,
)
from pontryagin.update import MSA, ExtendedMSA

F64 = torch.float64
VARYING = normal(40, 2, seed=3)


def linear(x: Tensor, theta: MatrixSet | None = None, cost: RunningCost | None = None,
           bias: bool = True) -> ControlProblem:
    """One Linear stage; the weights of the first two inputs are always the same."""
    module = nn.Linear(x.shape[1], 2, bias=bias, dtype=x.dtype)
    with torch.no_grad():
        module.weight.fill_(0.1)
        module.weight[:, :2] = torch.tensor([[0.5, 0.2], [0.0, 0.7]])
        if bias:
            module.bias.zero_()
    return ControlProblem([stage(module, running_cost=cost, admissible=theta)], SquaredError(), x,
                          normal(40, 2, seed=4).to(x.dtype))


SETS: dict[str, tuple[MatrixSet | None, RunningCost | None]] = {
    "free": (None, None), "non-negative": (NonNegative(), None), "box": (Box(-1, 1), None),
    "sparse": (KSparse(2), None), "quadratic": (None, Quadratic(0.1)), "L1": (None, L1(0.1)),
    "L0": (None, L0(0.01))}
CONSTANT = {"constant": 0.3, "dead": 0.0, "large": 1e5 / 3, "minute": 1e-170}


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("value", CONSTANT)
@pytest.mark.parametrize("kind", ["free", "non-negative", "box"])
def test_a_constant_input_promises_nothing_beside_the_bias(kind: str, value: str, dtype: torch.dtype) -> None:
    """The gap is that of the stage without it, its part in the bias."""
    constant = torch.full((40, 1), CONSTANT[value], dtype=dtype)
    problem = linear(torch.cat([VARYING.to(dtype), constant], 1), *SETS[kind])
    without = linear(VARYING.to(dtype), *SETS[kind])
    bias = 0.1 * constant[0] * torch.ones(2, dtype=dtype)
    control = torch.cat([without.initial_controls()[0][:-2], bias])
    gap = ExtendedMSA(problem).optimality_gap(maximizer=_exact(kind))
    expected = ExtendedMSA(without, [control]).optimality_gap(maximizer=_exact(kind))
    assert gap == pytest.approx(expected, rel=1e-12 if dtype == F64 else 1e-3)


def _exact(kind: str) -> ClosedForm | None:
    return ClosedForm(0.0) if kind == "free" else None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", SETS)
def test_stages_without_inputs_have_a_gap_and_come_to_an_end(kind: str, bias: bool) -> None:
    for x in (torch.zeros(40, 3, dtype=F64), torch.full((40, 3), 0.1, dtype=F64),
              VARYING[:, :1] * torch.tensor([1.0, 2.0, 0.0], dtype=F64)):
        solver = ExtendedMSA(linear(x, *SETS[kind], bias=bias))
        found = solver.solve(40, tolerance=1e-6)
        assert 0 <= found.optimality_gap < inf
        assert found.converged or "the optimality gap at" in found.ending.reason
        assert max(float(control.abs().max()) for control in solver.controls) < 100


def test_moments_of_parts_that_are_constant_alike_are_constant() -> None:
    def of(rows: int) -> StageMoments:
        x = torch.full((1, rows, 1), 0.1, dtype=F64)
        u = normal(1, rows, 1, seed=rows)
        centred = x - x.mean(1, keepdim=True)
        return StageMoments(u.mT @ x / rows, u.mean(1), centred.mT @ centred / rows, x.mean(1),
                            u.mT @ u / rows, 1)

    joint = merge_moments([of(3), of(7), of(11)], [3, 7, 11])
    assert joint.inputs.item() == 0
    assert joint.gradient.item() == joint.bias_gradient.item() * joint.input_mean.item()
    varies = replace(joint, inputs=torch.full((1, 1, 1), 1e-20, dtype=F64))  # of 1e-10, a million roundings
    assert settled(varies) is varies


def in_the_cone(target: float) -> ControlProblem:
    """Non-negative weights, at 0, for positive inputs and a constant target."""
    problem = linear(VARYING.abs(), NonNegative(), bias=False)
    return replace(problem, target=torch.full((40, 2), target, dtype=F64),
                   stages=[replace(problem.stages[0], start=torch.zeros(4, dtype=F64))])


BASIC = Penalties(0.0, 0.0)


@pytest.mark.parametrize(("problem", "words"), [
    (linear(VARYING), "no maximum without a state penalty"),
    (in_the_cone(10.0), r"no maximum over NonNegative\(\)"),
    (linear(VARYING, Box(-1, 1)), "no maximum over the free bias"),
    (linear(VARYING, cost=L1(0.1)), "no maximum over the free bias|no maximum over R"),
    (tanh_problem(), "GaussNewton needs a penalty or a quadratic running cost"),
], ids=["free", "non-negative", "free bias", "L1", "not affine"])
def test_where_the_hamiltonian_has_no_maximum_the_gap_is_infinite_and_says_why(problem: ControlProblem,
                                                                               words: str) -> None:
    solver = ExtendedMSA(problem)
    assert solver.optimality_gap(BASIC) == inf
    found = solver.solve(1, tolerance=1e-3, reference=BASIC)
    assert found.optimality_gap == inf
    assert not found.converged
    assert len(found) == 1
    assert re.search(f"is inf: .*({words})", found.ending.reason)


def test_where_no_weight_above_zero_is_worth_anything_the_gap_without_a_penalty_is_finite() -> None:
    """H is linear, and its slope points out of the cone."""
    assert ExtendedMSA(in_the_cone(-10.0)).optimality_gap(BASIC) == 0


def test_a_step_without_a_maximum_is_refused() -> None:
    solver = MSA(linear(VARYING))
    with pytest.raises(NoMaximumError, match="use rho_state > 0"):
        solver.step()
    assert solver.iteration == 0
