"""A record's evaluations are the passes through a stage that its iteration has made."""

from dataclasses import replace

import pytest

from builders import Counted, normal, tanh_problem
from pontryagin.maximizer import LBFGS, GaussNewton, GradientAscent, Maximizer
from pontryagin.problem import ControlProblem, SquaredError
from pontryagin.update import AcceptReject, ExtendedMSA, Momentum
from pontryagin.update.acceleration import Plain


@pytest.mark.parametrize("maximizer", [GradientAscent(0.01), LBFGS(3), GaussNewton()], ids=str)
@pytest.mark.parametrize("batch", [False, True], ids=["full", "batch"])
def test_evaluations_are_the_calls_of_a_stage(batch: bool, maximizer: Maximizer) -> None:
    plain = tanh_problem(steps=1)
    counted = Counted(plain.stages[0].dynamics)
    problem = ControlProblem([replace(plain.stages[0], dynamics=counted)], SquaredError(),
                             plain.initial_state, plain.target)
    solver = ExtendedMSA(problem, maximizer=maximizer, penalty=AcceptReject(rho=0.05), acceleration=Plain())
    for _ in range(3):
        counted.calls = 0
        record = solver.step((normal(4, 3, seed=1), normal(4, 3, seed=2)) if batch else None)
        checks = 1 if batch else 0  # a batch is checked by a pass of two samples
        assert record.evaluations == counted.calls - checks


def test_replaced_controls_are_propagated_anew() -> None:
    problem = tanh_problem()
    first, second = (ExtendedMSA(problem, maximizer=LBFGS(3), acceleration=Momentum()) for _ in range(2))
    first.step()
    first.controls = second.controls
    again, fresh = first.step(), second.step()
    assert again.objective_before == fresh.objective_before
    assert again.stages != ()
