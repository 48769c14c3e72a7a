"""Mini-batches: a step is that of the problem on the batch."""

import pytest
import torch

from builders import normal, objective, split_problem, tanh_problem
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import LBFGS
from pontryagin.problem import NonFiniteError, ProblemError
from pontryagin.update import ExtendedMSA, Fixed, Momentum, Secant
from pontryagin.update.acceleration import Plain


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(normal(4, 3, seed=2 * n), 0.3 * normal(4, 3, seed=2 * n + 1)) for n in range(count)]


def test_a_step_on_a_batch_is_a_step_of_the_problem_on_it() -> None:
    problem = tanh_problem()
    (batch,) = batches(1)
    solver = ExtendedMSA(problem, maximizer=LBFGS(4), penalty=Fixed(Penalties(20.0, 2.0)),
                         acceleration=Plain())
    alone = ExtendedMSA(problem.on(*batch), maximizer=LBFGS(4), penalty=Fixed(Penalties(20.0, 2.0)),
                        acceleration=Plain())
    found, expected = solver.step(batch), alone.step()
    assert found.objective_before == expected.objective_before
    assert found.objective_after == expected.objective_after
    assert all(torch.equal(a, b) for a, b in zip(solver.controls, alone.controls, strict=True))


def test_full_steps_and_batches_may_alternate() -> None:
    problem = split_problem()
    solver = ExtendedMSA(problem, penalty=Fixed(Penalties(50.0, 5.0)), acceleration=Plain())
    solver.step()
    solver.step(batches(1)[0])
    now = float(objective(problem, solver.controls))
    assert solver.step().objective_before == pytest.approx(now, rel=1e-13)


@pytest.mark.parametrize("acceleration", [Plain(), Momentum()], ids=["plain", "momentum"])
def test_batches_lower_the_objective(acceleration: Plain) -> None:
    problem = split_problem(samples=24)
    problem = problem.on(problem.initial_state, problem.initial_state.flip(1))
    solver = ExtendedMSA(problem, penalty=Fixed(Penalties(60.0, 5.0)), acceleration=acceleration)
    before = float(objective(problem, solver.controls))
    for n in range(60):
        rows = torch.arange(6) + 6 * (n % 4)
        solver.step((problem.initial_state[rows], problem.target[rows]))
    assert solver.iteration == 60
    assert float(objective(problem, solver.controls)) < 0.6 * before


def test_secants_refuse_batches() -> None:
    solver = ExtendedMSA(split_problem(), acceleration=Secant())
    before = solver.controls
    with pytest.raises(ProblemError, match=r"Secant compares gradients of successive iterations.*full batch"):
        solver.step(batches(1)[0])
    assert solver.controls is before
    assert solver.iteration == 0


def test_bad_batches_are_refused_and_nothing_changes() -> None:
    solver = ExtendedMSA(split_problem())
    before, (x, y) = solver.controls, batches(1)[0]
    with pytest.raises(ProblemError, match=r"expected states of shape \(3,\), found \(2,\)"):
        solver.step((x[:, :2], y))
    with pytest.raises(ProblemError, match="a target for each of 4 samples"):
        solver.step((x, y[:2]))
    with pytest.raises(NonFiniteError, match="the target holds NaN or infinite values, first in sample 0"):
        solver.step((x, y / 0))
    assert solver.controls is before
    assert solver.iteration == 0
