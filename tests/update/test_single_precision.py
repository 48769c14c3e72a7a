"""float32 from end to end, loosely the same as float64."""

from dataclasses import replace

import pytest
import torch

from builders import assert_close, mixed_problem, split_problem, tanh_problem
from pontryagin.maximizer import (
    LBFGS,
    ByForm,
    ClosedForm,
    GaussNewton,
    GradientAscent,
    Maximizer,
    RowGaussNewton,
)
from pontryagin.problem import ControlProblem, Quadratic
from pontryagin.update import AcceptReject, ExtendedMSA, Secant
from pontryagin.update.acceleration import Acceleration, Plain


def single(problem: ControlProblem) -> ControlProblem:
    """The problem in float32; modules take their parameters from the controls, so only those and the data
    change."""
    stages = [replace(one, start=one.start.float()) for one in problem.stages]
    target = problem.target.float() if problem.target.is_floating_point() else problem.target
    return ControlProblem(stages, problem.terminal_cost, problem.initial_state.float(), target)


PROBLEMS = {"tanh": lambda: tanh_problem(cost=Quadratic(0.1)), "split": split_problem,
            "mixed": lambda: mixed_problem(["conv"], ["tanh", "norm"], seed=3)}


@pytest.mark.parametrize(("name", "maximizer", "acceleration"), [
    ("tanh", LBFGS(3), Plain()), ("tanh", GaussNewton(), Plain()), ("tanh", RowGaussNewton(), Plain()),
    ("split", ClosedForm(), Plain()), ("split", ClosedForm(), Secant()),
    ("mixed", ByForm(other=LBFGS(3)), Plain()), ("mixed", GradientAscent(0.05), Plain())], ids=str)
def test_three_iterations_agree(name: str, maximizer: Maximizer, acceleration: Acceleration) -> None:
    double, runs = PROBLEMS[name](), []
    for problem in (double, single(double)):
        solver = ExtendedMSA(problem, maximizer=maximizer, acceleration=acceleration,
                             penalty=AcceptReject(rho=30.0))
        runs.append((list(solver.iterate(3))[-1], solver.controls))
    (long, exact), (short, rough) = runs
    assert {control.dtype for control in rough if control.numel()} == {torch.float32}
    assert short.objective_after == pytest.approx(long.objective_after, rel=1e-3)
    assert short.objective_after < short.objective_before
    for found, expected in zip(rough, exact, strict=True):
        assert_close(found.double(), expected.double(), 1e-2)
