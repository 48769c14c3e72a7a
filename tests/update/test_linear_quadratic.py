"""Linear dynamics and quadratic costs: extended MSA converges to the solution of the normal equations."""

import pytest
import torch
from torch import Tensor, nn

from builders import STATE_ONLY, assert_close, normal, objective
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import LBFGS, ClosedForm, GaussNewton, Maximizer
from pontryagin.problem import ControlProblem, Quadratic, SquaredError, Stage, stage
from pontryagin.update import AcceptReject, ExtendedMSA, Fixed, Momentum, PenaltyRule
from pontryagin.update.acceleration import Acceleration, Plain

STEPS, WIDTH, INPUTS, WEIGHT, DELTA = 3, 3, 2, 4.0, 0.5
A = torch.eye(WIDTH, dtype=torch.float64) + 0.2 * normal(WIDTH, WIDTH, seed=1)
B = 0.7 * normal(WIDTH, INPUTS, seed=2)


def controlled(x: Tensor, theta: dict[str, Tensor]) -> Tensor:
    """A x + B u."""
    return x @ A.mT + theta["u"] @ B.mT


def regulator() -> ControlProblem:
    start = {"u": normal(INPUTS, seed=3)}
    stages = [stage(controlled, start, running_cost=Quadratic(WEIGHT), step_size=DELTA) for _ in range(STEPS)]
    return ControlProblem(stages, SquaredError(), normal(5, WIDTH, seed=4), normal(5, WIDTH, seed=5))


def normal_equations(problem: ControlProblem) -> Tensor:
    """argmin mean |A^N x0 + M u - y|^2 + delta weight/2 |u|^2, M = [A^{N-1} B ... B]."""
    columns = torch.cat([torch.linalg.matrix_power(A, STEPS - 1 - n) @ B for n in range(STEPS)], 1)
    free = problem.initial_state @ torch.linalg.matrix_power(A, STEPS).mT
    system = 2 * columns.mT @ columns + DELTA * WEIGHT * torch.eye(STEPS * INPUTS, dtype=torch.float64)
    return torch.linalg.solve(system, 2 * columns.mT @ (problem.target - free).mean(0))


def riccati(problem: ControlProblem) -> Tensor:
    """The same controls by dynamic programming on the mean state, for the cost x^T P x + 2 q^T x."""
    value, linear, gains = torch.eye(WIDTH, dtype=torch.float64), -problem.target.mean(0), []
    for _ in range(STEPS):
        inner = B.mT @ value @ B + 0.5 * DELTA * WEIGHT * torch.eye(INPUTS, dtype=torch.float64)
        gain = torch.linalg.solve(inner, B.mT @ value @ A)
        offset = torch.linalg.solve(inner, B.mT @ linear)
        gains.insert(0, (gain, offset))
        closed = A - B @ gain
        value, linear = A.mT @ value @ closed, closed.mT @ linear
    state, controls = problem.initial_state.mean(0), []
    for gain, offset in gains:
        controls.append(-gain @ state - offset)
        state = A @ state + B @ controls[-1]
    return torch.cat(controls)


def test_the_two_oracles_agree() -> None:
    problem = regulator()
    assert_close(riccati(problem), normal_equations(problem), 1e-12)


@pytest.mark.parametrize(("maximizer", "acceleration"), [
    (GaussNewton(1e-6), Plain()), (GaussNewton(1e-6), Momentum(0.3)),
    pytest.param(LBFGS(8), Plain(), marks=pytest.mark.slow)], ids=["gauss-newton", "momentum", "lbfgs"])
def test_regulator(maximizer: Maximizer, acceleration: Acceleration) -> None:
    problem = regulator()
    solver = ExtendedMSA(problem, maximizer=maximizer, penalty=Fixed(Penalties(4.0, 1.0)),
                         acceleration=acceleration)
    records = list(solver.iterate(80))  # not solve: it would stop where the gap is lost in rounding
    assert_close(torch.cat(solver.controls), normal_equations(problem), 1e-8)
    assert abs(records[-1].optimality_gap) < 1e-14 * records[0].optimality_gap


def fixed_map(x: Tensor, theta: object) -> Tensor:
    return x @ A.mT


def ridge(*after: Stage, bias: bool = True) -> ControlProblem:
    """min mean |C (W x + b) - y|^2 + weight/2 |(W, b)|^2, C what comes after."""
    linear = stage(nn.Linear(2, WIDTH, bias=bias, dtype=torch.float64), running_cost=Quadratic(WEIGHT))
    return ControlProblem([linear, *after], SquaredError(), normal(9, 2, seed=6), normal(9, WIDTH, seed=7))


def least_squares(problem: ControlProblem) -> Tensor:
    """The minimizer of J, from its dense Hessian, which is constant."""
    def cost(theta: Tensor) -> Tensor:
        return objective(problem, [theta, *problem.initial_controls()[1:]])

    zero = torch.zeros_like(problem.stages[0].start)
    return torch.linalg.solve(torch.func.hessian(cost)(zero), -torch.func.grad(cost)(zero))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_linear_stage_with_the_exact_penalty_needs_one_iteration(bias: bool) -> None:
    """|W x + b - y|^2 has the Hessian 2 that rho_state = 2 stands for, so H~ = -J up to a constant."""
    problem = ridge(bias=bias)
    solver = ExtendedMSA(problem, maximizer=ClosedForm(0.0), penalty=Fixed(STATE_ONLY), acceleration=Plain())
    solver.step()
    assert_close(solver.controls[0], least_squares(problem), 1e-11)


@pytest.mark.parametrize("penalty", [AcceptReject(sufficient=0.2), Fixed(Penalties(8.0, 0.5)),
                                     Fixed(Penalties(8.0, 0.0))],
                         ids=["accept-reject", "both", "state"])
@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_a_linear_stage_followed_by_a_fixed_map(damping: float, penalty: PenaltyRule) -> None:
    problem = ridge(stage(fixed_map), stage(fixed_map))
    solver = ExtendedMSA(problem, maximizer=ClosedForm(damping), penalty=penalty, acceleration=Plain())
    list(solver.iterate(100))
    # accepting by J alone, whose rounding is 1e-16, controls are known to its square root
    assert_close(solver.controls[0], least_squares(problem), 1e-8 if isinstance(penalty, Fixed) else 1e-7)
