"""Orders, exact gradients, batching: a discretized problem is a ControlProblem like any other."""

from math import log2

import pytest
import torch
from continuous_builders import CONTROLS, MESH, discretized, effort, problem, swing
from torch import Tensor

from builders import assert_close, normal, objective
from pontryagin.continuous import (
    RK4,
    ContinuousProblem,
    Discretization,
    Euler,
    FreeTime,
    ImplicitMidpoint,
    Integrator,
    Midpoint,
    PiecewiseConstant,
    uniform,
)
from pontryagin.maximizer import GaussNewton
from pontryagin.problem import NonFiniteError, ProblemError
from pontryagin.trajectory import propagate
from pontryagin.update import AcceptReject, ExtendedMSA, Plain

ORDERS = {Euler(): 1, Midpoint(): 2, RK4(): 4, ImplicitMidpoint(): 2}


def final(integrator: Integrator, substeps: int) -> Tensor:
    on = discretized(integrator, substeps=substeps)
    controls = on.controls(normal(*on.shape, seed=3, scale=0.5))
    return propagate(on.control_problem(), controls).states[-1][:, :3]


@pytest.mark.parametrize(("integrator", "order"), ORDERS.items(), ids=str)
def test_order_of_convergence(integrator: Integrator, order: int) -> None:
    """Of states and of the accumulated cost; RK4 with many steps is the truth."""
    truth, steps = final(RK4(), 32), 4 if order == 4 else 8
    coarse, fine = (float((final(integrator, number) - truth).norm()) for number in (steps, 2 * steps))
    assert abs(log2(coarse / fine) - order) < 0.1


@pytest.mark.parametrize(("control", "free"), [
    ("constant", False), ("linear", True), ("per sample", True), ("linear per sample", False)])
@pytest.mark.parametrize("integrator", ORDERS, ids=str)
def test_gradients_are_those_of_the_discretized_problem(integrator: Integrator, control: str,
                                                        free: bool) -> None:
    """Costates give dJ/dtheta of every stage; central differences of J along random directions."""
    on = discretized(integrator, control, free, substeps=2)
    stages, controls = on.control_problem(), on.controls(normal(*on.shape, seed=3, scale=0.5))
    found = propagate(stages, controls)
    direction = [normal(*theta.shape, seed=n) for n, theta in enumerate(controls)]
    slope = 0.0
    for n, (stage, theta) in enumerate(zip(stages.stages, controls, strict=True)):
        leaf = theta.clone().requires_grad_()
        h = (found.costates[n + 1] * stage(found.states[n], leaf)).flatten(1).sum(1).mean()
        slope -= float(torch.autograd.grad(h, leaf)[0] @ direction[n])

    def value(size: float) -> float:
        return float(objective(stages, [theta + size * move for theta, move in zip(controls, direction,
                                                                                strict=True)]))

    differences = (8 * (value(1e-3) - value(-1e-3)) - (value(2e-3) - value(-2e-3))) / 12e-3
    assert abs(slope - differences) < 1e-8 * (1 + abs(slope))


@pytest.mark.parametrize("integrator", ORDERS, ids=str)
def test_costates_are_derivatives_of_what_is_still_to_come(integrator: Integrator) -> None:
    on = discretized(integrator, "linear")
    stages, controls = on.control_problem(), on.controls(normal(*on.shape, seed=3, scale=0.5))
    found = propagate(stages, controls)

    def rest(n: int, state: Tensor) -> Tensor:
        for stage, control in zip(stages.stages[n:], controls[n:], strict=True):
            state = stage(state, control)
        return stages.terminal_cost(state, stages.target)

    for n in range(1, len(found.states)):
        for entry in range(2):
            move = torch.zeros_like(found.states[n])
            move[:, entry] = 1e-3
            x = found.states[n]
            slope = (8 * (rest(n, x + move) - rest(n, x - move))
                     - rest(n, x + 2 * move) + rest(n, x - 2 * move)) / 12e-3
            assert_close(-found.costates[n][:, entry], slope, 1e-8)


@pytest.mark.parametrize("control", CONTROLS)
def test_all_intervals_are_batched_though_steps_and_times_differ(control: str) -> None:
    stages = discretized(RK4(), control).control_problem()
    lengths = [len(group) for group in stages.groups]
    assert lengths == ([1, len(MESH) - 1] if "linear" in control else [len(MESH) - 1])


def test_states_and_cost_are_those_of_a_plain_loop() -> None:
    on = discretized(Euler(), "linear", free=True)
    values = normal(*on.shape, seed=4)
    states = propagate(on.control_problem(), on.controls(values, end=2.0)).states
    x, cost, mesh = on.problem.initial_state, torch.zeros(3, dtype=torch.float64), MESH * (2.0 / 1.4)
    for n in range(4):
        theta, t = values[n].expand(3, -1), mesh[n].expand(3)
        step = mesh[n + 1] - mesh[n]
        x, cost = x + step * swing(t, x, theta), cost + step * effort(t, x, theta)
    assert_close(states[-1][:, :2], x, 1e-14)
    assert_close(states[-1][:, 2], cost, 1e-14)


def test_values_and_controls_are_inverse() -> None:
    for control in CONTROLS:
        for free in (False, True):
            on = discretized(RK4(), control, free)
            values = normal(*on.shape, seed=5)
            back, end = on.values(on.controls(values, 1.9))
            assert torch.equal(back, values)
            assert end == (1.9 if free else 1.4)


def test_per_sample_controls_are_separate_problems() -> None:
    whole = problem()
    on = Discretization(whole, MESH, RK4(), control=PiecewiseConstant(per_sample=True))
    values = normal(*on.shape, seed=6)
    together = propagate(on.control_problem(), on.controls(values))
    for i in range(3):
        alone = ContinuousProblem(swing, whole.initial_state[i:i + 1], 2, 1.4, effort, whole.terminal_cost,
                                  target=whole.target[i:i + 1])
        single = Discretization(alone, MESH)
        found = propagate(single.control_problem(), single.controls(values[:, i]))
        assert_close(together.terminal[i], found.terminal[0], 1e-14)
        assert_close(together.costates[0][i, :2], found.costates[0][0, :2], 1e-14)


def test_a_batch_of_a_per_sample_problem_keeps_its_controls() -> None:
    on = discretized(RK4(), "per sample")
    stages, controls = on.control_problem(), on.controls(normal(*on.shape, seed=6))
    part = stages.on(stages.initial_state[1:], stages.target[1:])
    assert_close(propagate(part, controls).terminal, propagate(stages, controls).terminal[1:], 1e-14)


def test_extended_msa_lowers_it() -> None:
    solver = ExtendedMSA(discretized(RK4()).control_problem(), maximizer=GaussNewton(),
                         penalty=AcceptReject(), acceleration=Plain())
    records = list(solver.iterate(4))
    assert all(record.objective_after <= record.objective_before for record in records)
    assert records[-1].objective_after < 0.95 * records[0].objective_before


def test_an_implicit_step_that_cannot_be_solved_is_named() -> None:
    def stiff(t: Tensor, x: Tensor, theta: Tensor) -> Tensor:
        return 1e4 * (x.square() + 1) * x.sin() + theta

    wild = ContinuousProblem(stiff, torch.ones(1, 1, dtype=torch.float64), 1, 1.0)
    on = Discretization(wild, uniform(1.0, 2), ImplicitMidpoint())
    with pytest.raises(NonFiniteError, match="interval 0"):
        propagate(on.control_problem(), on.controls(torch.zeros(on.shape)))


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda: Discretization(problem(), torch.tensor([0.0, 1.0, 0.9, 1.4])), "increasing nodes"),
    (lambda: Discretization(problem(), uniform(1.0, 3)), "last node at T = 1.4"),
    (lambda: Discretization(problem(), MESH, substeps=0), "substeps"),
    (lambda: discretized(RK4()).controls(torch.zeros(3, 2)), r"shape \(4, 2\)"),
    (lambda: FreeTime(1.0, 2.0, 3.0), "low <= start"),
    (lambda: ContinuousProblem(swing, torch.zeros(2), 2, 1.0), "sample, state"),
    (lambda: ContinuousProblem(swing, torch.zeros(1, 2), 2, -1.0), "end"),
    (lambda: ContinuousProblem(swing, torch.zeros(1, 2), 2, 1.0, bounds=(1.0, [0.0, 2.0])), "low <= high"),
    (lambda: ContinuousProblem(swing, torch.zeros(1, 2), 2, 1.0, lambda t, x, u: x), "running_cost"),
    (lambda: uniform(1.0, 0), "intervals"),
    (lambda: uniform(1.0, 2.5), "whole number"),
    (lambda: Discretization(problem(), MESH, substeps=2.5), "whole number"),
    (lambda: ContinuousProblem(swing, torch.zeros(1, 2).half(), 2, 1.0), "or float32, found .*float16"),
    (lambda: ContinuousProblem(swing, torch.zeros(0, 2), 2, 1.0), "one or more states"),
    (lambda: ContinuousProblem(swing, torch.zeros(1, 2), 2, 1.0, bounds=(0.0, 1.0, 2.0)), r"\(low, high\)"),
    (lambda: ContinuousProblem(swing, torch.zeros(1, 2), 2, 1.0, lambda t, x, u: 1.0), "found float"),
    (lambda: ContinuousProblem(swing, torch.zeros(1, 2), 2, 1.0, terminal_constraint=lambda x: x.sum()),
     r"terminal_constraint: .* shape \(1, constraint\), found \(\)"),
    (lambda: ContinuousProblem(swing, torch.zeros(1, 2), 2, 1.0, path_constraint=lambda t, x, u: x[:, 0]),
     r"path_constraint: .* expected a tensor of shape \(1, constraint\), found \(1,\)"),
])
def test_wrong_requests(wrong: object, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        wrong()
