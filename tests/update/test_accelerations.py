"""Momentum and secants: what they compute, how fast they are, and what they refuse."""

import pytest
import torch

from builders import assert_close, normal, split_problem, tanh_problem
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import LBFGS, ClosedForm, Maximizer, StageByStage
from pontryagin.problem import ControlProblem, ProblemError, Quadratic, SquaredError, split_euler, stage
from pontryagin.update import AcceptReject, ExtendedMSA, Fixed, Momentum, NewtonMSA, Secant
from pontryagin.update.acceleration import Acceleration, Plain


def sine_like() -> ControlProblem:
    """A target that two features and a readout of their sum can reach."""
    x = torch.linspace(-1.5, 1.5, 20, dtype=torch.float64)
    stages = split_euler(torch.tanh, 3, 0.5, 6, dtype=torch.float64)
    start = torch.stack([x, x, x], 1)
    return ControlProblem(stages, SquaredError(lambda state: state.sum(1)), start, (2 * x).sin())


def loss_after(iterations: int, acceleration: Acceleration, rule: AcceptReject) -> float:
    problem = sine_like()
    controls = [normal(control.numel(), seed=n, scale=0.2) if control.numel() else control
                for n, control in enumerate(problem.initial_controls())]
    solver = ExtendedMSA(problem, controls, acceleration=acceleration, penalty=rule)
    return list(solver.iterate(iterations))[-1].objective_after


def test_secants_reach_losses_that_the_argmax_alone_does_not() -> None:
    secant = loss_after(100, Secant(), AcceptReject(rho=1.0, restart=True))
    plain = loss_after(100, Plain(), AcceptReject())
    momentum = loss_after(100, Momentum(), AcceptReject())
    assert secant < 1e-5
    assert secant < 0.01 * plain
    assert momentum < plain


def test_secants_on_gauss_newton_reach_the_optimum_of_a_regulator() -> None:
    """Ten coupled steps x + B u: the argmax stage by stage creeps, secants are exact within 40 iterations."""
    a = torch.eye(3, dtype=torch.float64) + 0.1 * normal(3, 3, seed=1)
    b = 0.3 * normal(3, 2, seed=2)

    def controlled(x: torch.Tensor, theta: dict[str, torch.Tensor]) -> torch.Tensor:
        return x @ a.mT + theta["u"] @ b.mT

    stages = [stage(controlled, {"u": normal(2, seed=n)}, running_cost=Quadratic(0.1)) for n in range(10)]
    problem = ControlProblem(stages, SquaredError(), normal(5, 3, seed=3), normal(5, 3, seed=4))
    newton = NewtonMSA(problem)
    best = newton.solve()[-1].objective_after
    solver = ExtendedMSA(problem, acceleration=Secant(), penalty=AcceptReject(rho=1.0, restart=True))
    assert list(solver.iterate(40))[-1].objective_after <= best + 1e-8
    plain = list(ExtendedMSA(problem, acceleration=Plain()).iterate(40))[-1].objective_after
    assert plain > best + 1e-3


def test_momentum_mixes_the_last_step_and_the_argmax() -> None:
    """theta + (1 - beta) (theta* - theta) + beta (last step), at a constant rho."""
    problem, penalties, beta = split_problem(), Penalties(40.0, 5.0), 0.6
    solver = ExtendedMSA(problem, penalty=Fixed(penalties), acceleration=Momentum(beta))
    start = solver.controls
    solver.step()
    middle = solver.controls
    argmax = ExtendedMSA(problem, middle, penalty=Fixed(penalties), acceleration=Plain())
    argmax.step()
    solver.step()
    for n in range(len(problem.stages)):
        expected = (1 - beta) * argmax.controls[n] + beta * middle[n] + beta * (middle[n] - start[n])
        assert_close(solver.controls[n], expected, 1e-12)


def test_momentum_of_zero_is_the_plain_iteration() -> None:
    solvers = [ExtendedMSA(split_problem(), acceleration=kind) for kind in (Momentum(0.0), Plain())]
    for solver in solvers:
        list(solver.iterate(5))
    for found, expected in zip(solvers[0].controls, solvers[1].controls, strict=True):
        assert_close(found, expected, 1e-9)


def test_the_first_secant_step_is_the_argmax_at_the_first_rho() -> None:
    problem = split_problem()
    secant = ExtendedMSA(problem, maximizer=ClosedForm(1e-2), acceleration=Secant(first_rho=50.0),
                         penalty=Fixed(Penalties(1.0, 0.25)))
    plain = ExtendedMSA(problem, maximizer=ClosedForm(1e-2), acceleration=Plain(),
                        penalty=Fixed(Penalties(50.0, 12.5)))
    secant.step()
    plain.step()
    for found, expected in zip(secant.controls, plain.controls, strict=True):
        assert_close(found, expected, 1e-12)


def test_secants_solve_a_quadratic_objective_at_once() -> None:
    """One affine stage: J is quadratic in 6 numbers, so the first secant scales the argmax to the minimum."""
    linear = stage(torch.nn.Linear(2, 2, dtype=torch.float64))
    x, y = normal(20, 2), normal(20, 2, seed=1)
    problem = ControlProblem([linear], SquaredError(), x, y)
    solver = ExtendedMSA(problem, maximizer=ClosedForm(0.0), acceleration=Secant(),
                         penalty=AcceptReject(rho=1.0, restart=True, costate_weight=0.0))
    list(solver.iterate(4))
    inputs = torch.cat([x, torch.ones(20, 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(inputs, y).solution.mT
    assert_close(torch.cat([solver.controls[0][:4].view(2, 2), solver.controls[0][4:, None]], 1), best, 1e-8)


@pytest.mark.parametrize(("maximizer", "name"),
                         [(LBFGS(), "LBFGS"), (StageByStage(ClosedForm()), "StageByStage")],
                         ids=["lbfgs", "separate"])
def test_secants_need_a_closed_form(maximizer: Maximizer, name: str) -> None:
    solver = ExtendedMSA(split_problem() if name == "StageByStage" else tanh_problem(), maximizer=maximizer,
                         acceleration=Secant())
    before = solver.controls
    with pytest.raises(ProblemError, match=f"needs stages with a closed form or .*{name}.*split_euler"):
        solver.step()
    assert solver.controls is before
    assert solver.iteration == 0


@pytest.mark.parametrize("acceleration", [Secant(), Momentum()], ids=["secant", "momentum"])
def test_a_state_penalty_is_needed(acceleration: Acceleration) -> None:
    solver = ExtendedMSA(split_problem(cost=Quadratic(5.0)), acceleration=acceleration,
                         penalty=Fixed(Penalties(0.0, 1.0)))
    with pytest.raises(ProblemError, match="needs a state penalty > 0"):
        list(solver.iterate(2))


def test_a_solver_works_on_its_own_copies() -> None:
    acceleration, rule = Secant(), AcceptReject(rho=1.0)
    first, second = (ExtendedMSA(split_problem(), acceleration=acceleration, penalty=rule) for _ in range(2))
    list(first.iterate(5))
    assert rule == AcceptReject(rho=1.0)
    assert acceleration._pairs == []
    untouched = ExtendedMSA(split_problem(), acceleration=Secant(), penalty=AcceptReject(rho=1.0))
    assert second.step().objective_after == untouched.step().objective_after
