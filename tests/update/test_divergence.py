"""Basic MSA diverges from a bad start, and the records show the feasibility errors as the cause."""

import pytest
import torch

from builders import linear_problem, normal, split_problem, tanh_problem
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import LBFGS, ClosedForm, GradientAscent
from pontryagin.problem import ControlProblem, NonFiniteError, ProblemError, Quadratic, SquaredError, stage
from pontryagin.trajectory import propagate
from pontryagin.update import MSA, ExtendedMSA, Fixed
from pontryagin.update.acceleration import Plain


def test_predicted_to_fall_j_rises_with_the_feasibility_errors() -> None:
    problem = tanh_problem(steps=5, samples=10)
    reached = propagate(problem, problem.initial_controls()).states[-1]
    problem = problem.on(problem.initial_state, reached + 0.3 * normal(10, 3, seed=4))
    records = list(MSA(problem, maximizer=LBFGS(10)).iterate(4))
    first = records[0]
    assert first.optimality_gap > 0
    assert first.objective_after > 5 * first.objective_before
    assert first.estimate > 0
    tame = ExtendedMSA(problem, maximizer=LBFGS(10), penalty=Fixed(Penalties(100.0, 10.0)),
                       acceleration=Plain()).step()
    assert tame.objective_after < tame.objective_before
    assert first.feasibility_error > 1e3 * tame.feasibility_error
    assert min(record.objective_after for record in records) > first.objective_before
    risen = [record for record in records if record.objective_after > record.objective_before]
    assert risen
    for record in risen:  # Lemma 2: a rise needs errors that outweigh the gain
        assert record.estimate * record.feasibility_error > record.optimality_gap
        assert record.estimate > 0


def test_the_quadratic_cost_alone_does_not_tame_it() -> None:
    problem = split_problem(cost=Quadratic(0.05))
    records = list(MSA(problem, maximizer=ClosedForm(0.0)).iterate(5))
    assert records[0].penalties == Penalties(0.0, 0.0)
    assert records[0].optimality_gap > 0
    assert max(record.objective_after for record in records) > 5 * records[0].objective_before


def exploding() -> ControlProblem:
    stages = [stage(square, {"u": normal(3, seed=n)}) for n in range(3)]
    return ControlProblem(stages, SquaredError(), 5 * normal(6, 3), normal(6, 3, seed=9))


def square(x: torch.Tensor, theta: dict[str, torch.Tensor]) -> torch.Tensor:
    return (x * theta["u"]).square()


def test_controls_are_unchanged_when_numbers_overflow() -> None:
    solver = MSA(exploding(), maximizer=GradientAscent(1e60))
    before, copies = solver.controls, [control.clone() for control in solver.controls]
    for _ in range(2):
        with pytest.raises(NonFiniteError,
                           match=r"iteration 1: J becomes (nan|inf).*it was .*left unchanged.*larger rho"):
            solver.step()
        assert solver.controls is before
        assert all(torch.equal(control, copy) for control, copy in zip(before, copies, strict=True))
        assert solver.iteration == 0


def test_without_penalty_and_cost_the_closed_form_refuses() -> None:
    solver = MSA(linear_problem())
    before = solver.controls
    with pytest.raises(ProblemError, match="no maximum without a state penalty"):
        solver.step()
    assert solver.controls is before
    assert solver.iteration == 0
