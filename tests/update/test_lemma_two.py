"""Lemma 2 and what the records say of it."""

import math

import pytest
import torch

from builders import assert_close, groups_of, linear_problem, normal, objective, split_problem, tanh_problem
from pontryagin.hamiltonian import Penalties, measure
from pontryagin.maximizer import LBFGS, ClosedForm, Maximizer
from pontryagin.problem import ControlProblem, Quadratic, SquaredError, stage
from pontryagin.update import ExtendedMSA, Fixed
from pontryagin.update.acceleration import Plain

CASES = [(lambda: tanh_problem(cost=Quadratic(0.2)), LBFGS(4)), (split_problem, ClosedForm()),
         (lambda: linear_problem(cost=Quadratic(0.2)), ClosedForm())]


@pytest.mark.parametrize(("make", "maximizer"), CASES, ids=["tanh", "split", "linear"])
def test_records_are_what_they_say(make: type[ControlProblem], maximizer: Maximizer) -> None:
    problem = make()
    solver = ExtendedMSA(problem, maximizer=maximizer, penalty=Fixed(Penalties(9.0, 2.0)),
                         acceleration=Plain())
    for number in range(1, 4):
        old = solver.controls
        groups = groups_of(problem, old)
        record = solver.step()
        before, after = float(objective(problem, old)), float(objective(problem, solver.controls))
        gains, errors = {}, {}
        for group in groups:
            found = measure(group, torch.stack([solver.controls[n] for n in group.indices]))
            gains |= dict(zip(group.indices, found.gain.tolist(), strict=True))
            counted = torch.tensor(group.upstream) * found.costate_error  # of stage 0 it has no part
            errors |= dict(zip(group.indices, (found.state_error + counted).tolist(), strict=True))
        mu, error = sum(gains.values()), sum(errors.values())
        assert record.iteration == number
        assert [one.stage for one in record.stages] == sorted(gains)
        assert [one.name for one in record.stages] == [problem.stages[n].name for n in sorted(gains)]
        assert [one.gain for one in record.stages] == pytest.approx([gains[n] for n in sorted(gains)],
                                                                    rel=1e-9)
        assert record.optimality_gap == pytest.approx(mu, rel=1e-9)
        assert record.feasibility_error == pytest.approx(error, rel=1e-9)
        assert record.objective_before == pytest.approx(before, rel=1e-13)
        assert record.objective_after == record.trial_objective == pytest.approx(after, rel=1e-13)
        assert record.loss_after == pytest.approx(after - float(problem.running_cost(solver.controls)),
                                                  rel=1e-12)
        assert record.estimate == pytest.approx((after - before + mu) / error, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e-1, 1.0, 10.0])
def test_the_constant_is_bounded_whatever_the_new_controls(scale: float) -> None:
    """J(phi) <= J(theta) - sum of gains + C sum of errors, with one C for near and far controls."""
    problem = tanh_problem()
    theta = problem.initial_controls()
    before = float(objective(problem, theta))
    constants = []
    for seed in range(40):
        phi = tuple(control + normal(control.numel(), seed=100 * seed + n, scale=scale)
                    for n, control in enumerate(theta))
        mu = error = 0.0
        for group in groups_of(problem, theta):
            found = measure(group, torch.stack([phi[n] for n in group.indices]))
            mu += float(found.gain.sum())
            error += float((found.state_error + found.costate_error).sum())
        constants.append((float(objective(problem, phi)) - before + mu) / error)
    assert max(constants) < 20.0, max(constants)


def test_of_one_linear_stage_and_a_squared_error_the_remainder_is_the_state_error() -> None:
    """|z + dz - y|^2 - |z - y|^2 + p . dz = |dz|^2 with p = -2(z - y): so C_k = 1, exactly, for the costate
    error counts only where a control lies upstream."""
    linear = stage(torch.nn.Linear(3, 2, dtype=torch.float64))
    problem = ControlProblem([linear], SquaredError(), normal(6, 3), normal(6, 2, seed=1))
    solver = ExtendedMSA(problem, maximizer=ClosedForm(), penalty=Fixed(Penalties(5.0, 1.0)),
                         acceleration=Plain())
    for record in solver.iterate(4):
        (one,) = record.stages
        remainder = record.objective_after - record.objective_before + record.optimality_gap
        assert remainder == pytest.approx(one.state_error, rel=1e-8)
        assert one.costate_error > 0
        assert record.estimate == pytest.approx(1.0, rel=1e-8)


def test_the_estimate_is_nan_when_nothing_moved() -> None:
    initial = normal(3, 3)
    linear = stage(torch.nn.Linear(3, 3, dtype=torch.float64))
    problem = ControlProblem([linear], SquaredError(), initial, linear(initial, linear.start))
    record = ExtendedMSA(problem, acceleration=Plain()).step()
    assert math.isnan(record.estimate)
    assert record.optimality_gap == 0
    assert_close(torch.tensor(record.objective_after), torch.tensor(0.0), 1e-15)
