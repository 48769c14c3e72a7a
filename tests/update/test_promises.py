"""What rules and solve promise, and the kinds of cases in which it did not hold."""

import copy
import math
import pickle
from dataclasses import dataclass

import pytest
import torch
from penalty_trials import models_with, trial
from torch import Tensor, nn

from builders import assert_close, groups_of, normal, objective, split_problem, tanh_problem
from pontryagin.hamiltonian import Penalties, augmented, paper_penalties
from pontryagin.maximizer import (
    LBFGS,
    ByForm,
    ClosedForm,
    CoordinateAscent,
    GaussNewton,
    GradientAscent,
    Maximizer,
)
from pontryagin.maximizer.gradient_ascent import hamiltonian_gradient
from pontryagin.maximizer.protocol import EvaluatedModel
from pontryagin.problem import Box, ControlProblem, ProblemError, SquaredError, stage
from pontryagin.trajectory import StageGroup
from pontryagin.update import (
    AcceptReject,
    ExtendedMSA,
    Fixed,
    FromEstimate,
    Momentum,
    PaperPenalty,
    PenaltyRule,
    PerStageEstimate,
    Plain,
)

F64 = torch.float64


def least_squares(seed: int, *, inputs: int = 6, outputs: int = 3, scale: float = 1.0) -> ControlProblem:
    torch.manual_seed(seed)
    x = normal(100, inputs, seed=seed)
    y = scale * (x @ normal(inputs, outputs, seed=seed + 1) + 0.1 * normal(100, outputs, seed=seed + 2))
    return ControlProblem([stage(nn.Linear(inputs, outputs, dtype=F64))], SquaredError(), x, y)


def scalar() -> tuple[ControlProblem, list[Tensor]]:
    """One weight, C = 1."""
    x = normal(200, 1)
    problem = ControlProblem([stage(nn.Linear(1, 1, bias=False, dtype=F64))], SquaredError(), x, 3 * x)
    return problem, [torch.full((1,), 2.9, dtype=F64)]


@pytest.mark.parametrize("maximizer", [ByForm(), GaussNewton(), LBFGS(), GradientAscent(10.0)], ids=str)
@pytest.mark.parametrize("rho", [2.2, 2.5, 4.0, 50.0])
def test_a_fixed_penalty_above_twice_the_constant_lowers_j_whatever_maximizes(rho: float,
                                                                               maximizer: Maximizer) -> None:
    problem, start = scalar()
    solver = ExtendedMSA(problem, start, maximizer=maximizer, penalty=Fixed(Penalties(rho, rho)))
    for record in solver.iterate(12):
        assert record.objective_after <= record.objective_before * (1 + 1e-12)


@pytest.mark.parametrize("beta", [0.7, 0.95])
def test_momentum_keeps_the_bound_of_theorem_four(beta: float) -> None:
    """J_new - J_old <= -(1 - 2C/rho) mu_k, C the largest that the run has shown; and mu_k is summable."""
    rho = 300.0
    solver = ExtendedMSA(split_problem(), penalty=Fixed(Penalties(rho, rho)), acceleration=Momentum(beta))
    records = list(solver.iterate(80))
    constant = max(record.estimate for record in records)
    share = 1 - 2 * constant / rho
    assert share > 0.5, "the penalty is too small for this test"
    for record in records:
        change = record.objective_after - record.objective_before
        assert change <= -share * record.optimality_gap + 1e-12 * record.objective_before
    fallen = records[0].objective_before - records[-1].objective_after
    assert sum(record.optimality_gap for record in records) <= fallen / share * (1 + 1e-9)
    assert records[-1].optimality_gap < 0.8 * records[0].optimality_gap


def test_momentum_of_an_old_direction_that_lowers_the_hamiltonian_is_dropped() -> None:
    problem, start = scalar()
    plain, momentum = (ExtendedMSA(problem, start, penalty=Fixed(Penalties(2.2, 0.0)), acceleration=kind)
                       for kind in (Plain(), Momentum(0.9)))
    list(plain.iterate(4))
    list(momentum.iterate(4))
    assert_close(momentum.controls[0], plain.controls[0], 1e-12)


RULES: list[PenaltyRule] = [AcceptReject(), FromEstimate(), PerStageEstimate(), FromEstimate(rho=1e7),
                            AcceptReject(rho=1e8), FromEstimate(costate_weight=0.0)]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_where_solve_says_converged_the_plain_argmax_promises_no_more(rule: PenaltyRule,
                                                                      scale: float) -> None:
    tolerance = 1e-8 * scale**2
    for seed in range(2):
        problem = least_squares(seed, scale=scale)
        solver = ExtendedMSA(problem, penalty=rule)
        found = solver.solve(300, tolerance=tolerance)
        assert found.converged, found.ending.reason
        again = ExtendedMSA(problem, solver.controls, penalty=Fixed(Penalties(1.0, 0.0)),
                            maximizer=ClosedForm(0.0), acceleration=Plain())
        assert again.step().optimality_gap <= 1.01 * tolerance
        assert found.optimality_gap <= tolerance
        assert found.ending.reason.startswith("converged")


def test_a_small_promise_of_a_short_step_certifies_nothing() -> None:
    """A first rho of 1e9 promises 1e-7; the gap at the reference is what it was."""
    problem = least_squares(0)
    solver = ExtendedMSA(problem, penalty=Fixed(Penalties(1e9, 0.0)))
    found = solver.solve(3, tolerance=1e-6)
    assert found[0].optimality_gap < 1e-6
    assert not found.converged
    assert found.optimality_gap > 1.0
    assert len(found) == 3


def test_the_reference_is_stated_and_counts() -> None:
    problem = least_squares(0)
    solver = ExtendedMSA(problem)
    one, two = solver.optimality_gap(), solver.optimality_gap(Penalties(2.0, 0.0))
    assert one == pytest.approx(2 * two, rel=1e-6)
    before = objective(problem, solver.controls)
    best = torch.linalg.lstsq(torch.cat([problem.initial_state, torch.ones(100, 1, dtype=F64)], 1),
                              problem.target)
    least = (problem.target - torch.cat([problem.initial_state, torch.ones(100, 1, dtype=F64)], 1)
             @ best.solution).square().sum(1).mean()
    # of |z - y|^2 the argmax at rho_state = 2 is the minimum, and promises twice what J falls by
    assert two == pytest.approx(2 * float(before - least), rel=1e-2)
    assert solver.step().evaluations > 0


def test_looking_at_the_gap_changes_no_step() -> None:
    quiet, looked = (ExtendedMSA(split_problem(), maximizer=maximizer) for maximizer in (ByForm(), ByForm()))
    for _ in range(4):
        looked.optimality_gap()
        assert quiet.step().objective_after == looked.step().objective_after


def test_after_a_burst_of_rejections_rho_comes_back() -> None:
    rule = FromEstimate(rho=4.0)
    rule.begin(models_with(0.1))
    assert rule.accepts(trial(predicted=1.0, achieved=0.5))
    for _ in range(6):
        assert not rule.accepts(trial(predicted=1.0, achieved=float("nan")))
    assert rule.rho == pytest.approx(4e6)
    for _ in range(80):
        assert rule.accepts(trial(predicted=1e-15, achieved=1e-15))
    assert rule.rho == pytest.approx(4.0)


def test_a_rejection_in_the_rounding_of_j_asks_for_no_larger_rho() -> None:
    for rule in (AcceptReject(rho=4.0), FromEstimate(rho=4.0)):
        rule.begin(models_with(0.1))
        assert not rule.accepts(trial(predicted=1e-16, achieved=-1e-15))
        assert rule.rho < 4.0


def test_rho_stays_a_number() -> None:
    for rule in (AcceptReject(), FromEstimate()):
        rule.begin(models_with(0.1))
        for achieved in (float("nan"), 1.0):
            for _ in range(1500):
                rule.accepts(trial(predicted=1.0, achieved=achieved))
                assert 0 < rule.penalties()[0].rho_state < float("inf")


@dataclass(frozen=True)
class Stubborn:
    """A maximizer that takes the same long step whatever the penalties are."""

    length: float = 10.0

    def model(self, group: StageGroup) -> "StubbornModel":
        return StubbornModel(group, self.length)


class StubbornModel(EvaluatedModel):
    def __init__(self, group: StageGroup, length: float) -> None:
        super().__init__(group)
        self.length = length

    def maximize(self, penalties: Penalties) -> Tensor:
        return self.group.control + self.length * torch.ones_like(self.group.control)


@pytest.mark.parametrize("rule", [AcceptReject(), FromEstimate(), PerStageEstimate()], ids=str)
def test_a_maximizer_that_ignores_penalties_ends_in_words(rule: PenaltyRule) -> None:
    problem = least_squares(0)
    solver = ExtendedMSA(problem, maximizer=Stubborn(), penalty=rule)
    before = solver.controls
    for record in solver.iterate(20):  # rho does not grow from iteration to iteration
        assert not record.accepted
        assert record.rejected == 30
        assert math.isfinite(record.penalties.rho_state)
    assert solver.controls is before
    found = solver.solve(20, tolerance=1e-6)
    assert len(found) == 1
    assert not found.converged
    assert "none of 30 trials lowered J by enough" in found.ending.reason
    assert "does not shorten its steps" in found.ending.reason


@pytest.mark.parametrize("rule", [AcceptReject(), FromEstimate()], ids=str)
def test_too_long_gradient_steps_are_shortened(rule: PenaltyRule) -> None:
    problem = least_squares(0, inputs=2, outputs=1)
    records = list(ExtendedMSA(problem, maximizer=GradientAscent(10.0), penalty=rule).iterate(40))
    assert all(record.objective_after <= record.objective_before for record in records)
    assert records[-1].objective_after < 0.02


@pytest.mark.parametrize("sizes", [(10, 25, 40), (40, 7)], ids=str)
def test_the_papers_rho_serves_every_batch(sizes: tuple[int, ...]) -> None:
    problem = tanh_problem(samples=max(sizes))
    solver = ExtendedMSA(problem, maximizer=LBFGS(3), penalty=PaperPenalty(0.5), acceleration=Plain())
    for size in sizes:
        batch = problem.initial_state[:size], problem.target[:size]
        alone = ExtendedMSA(problem.on(*batch), solver.controls, maximizer=LBFGS(3), acceleration=Plain(),
                            penalty=Fixed(paper_penalties(0.5, size)))
        record, expected = solver.step(batch), alone.step()
        assert record.penalties == paper_penalties(0.5, size)
        assert record.objective_after == expected.objective_after
    assert solver.step().penalties == paper_penalties(0.5, problem.samples)
    with pytest.raises(ProblemError, match="found -1"):
        PaperPenalty(-1.0)


MAXIMIZERS: list[tuple[str, Maximizer]] = [
    ("split", ClosedForm(0.0)), ("split", CoordinateAscent(200)), ("tanh", LBFGS(60)),
    ("tanh", GaussNewton(1e-3))]


@pytest.mark.parametrize(("name", "maximizer"), MAXIMIZERS, ids=str)
def test_the_costate_penalty_is_left_out_where_no_control_lies_upstream(name: str,
                                                                        maximizer: Maximizer) -> None:
    problem = {"split": split_problem, "tanh": tanh_problem}[name]()
    (group,) = groups_of(problem)
    assert group.upstream == (False, True, True)
    both, state, everywhere = (maximizer.model(group).maximize(penalties) for penalties in (
        Penalties(30.0, 20.0), Penalties(30.0, 0.0), Penalties(30.0, 20.0, everywhere=True)))
    near = 1e-6 if isinstance(maximizer, LBFGS) else 1e-7
    assert_close(both[0], state[0], near)
    assert_close(both[1:], everywhere[1:], near)
    assert float((both[0] - everywhere[0]).abs().max()) > 1e-3
    assert float((both[1:] - state[1:]).abs().max()) > 1e-3


def test_the_first_stages_costate_error_has_no_part_in_the_remainder() -> None:
    """g_0 bilinear, everything after it linear: with theta_0 alone changed, dx_0 = 0 and J is linear in g_0,
    so the remainder is 0 whatever the costate error of stage 0 is. Upstream of a change it is not."""
    start = {"u": normal(3, seed=1)}
    stages = [stage(lambda x, theta: x * theta["u"], start),
              stage(lambda x, theta: x * theta["u"] + x, start)]
    problem = ControlProblem(stages, lambda x, y: (x * y).sum(1), normal(5, 3), normal(5, 3, seed=2))
    old = problem.initial_controls()
    for changed, remains in (((True, False), False), ((True, True), True)):
        new = tuple(control + 0.5 * flag for control, flag in zip(old, changed, strict=True))
        gain, errors = 0.0, []
        for group in groups_of(problem):
            found = ClosedFormLess(group).measure(torch.stack([new[n] for n in group.indices]))
            gain += float(found.gain.sum())
            errors += found.costate_error.tolist()
        assert errors[0] > 0.01
        remainder = float(objective(problem, new) - objective(problem, old)) + gain
        assert (abs(remainder) > 1e-3) is remains


class ClosedFormLess(EvaluatedModel):
    def maximize(self, penalties: Penalties) -> Tensor:
        return self.group.control


@pytest.mark.parametrize(("name", "maximizer"),
                         [*MAXIMIZERS, ("split", ByForm()), ("tanh", GradientAscent(0.3))], ids=str)
def test_a_penalty_on_the_control_alone_is_the_sequential_quadratic_one(name: str,
                                                                        maximizer: Maximizer) -> None:
    """H - rho/2 |theta - theta_old|^2: stationary where there is a closed form, never lower than at the
    start."""
    problem = {"split": split_problem, "tanh": tanh_problem}[name]()
    (group,) = groups_of(problem)
    penalties = Penalties(0.0, 0.0, rho_control=8.0)
    found = maximizer.model(group).maximize(penalties)
    for n, new in enumerate(found):
        data, old = tuple(part[n] for part in group.data), group.control[n]

        def value(theta: Tensor, data: tuple[Tensor, ...] = data, old: Tensor = old) -> Tensor:
            return augmented(group.stage, theta, data, penalties, old)  # type: ignore[arg-type]

        assert value(new) >= value(old)
        if isinstance(maximizer, ClosedForm | CoordinateAscent | LBFGS | ByForm):
            left, whole = (float(torch.func.grad(value)(theta).norm()) for theta in (new, old))
            assert left < 1e-4 * whole


def test_boxes_take_the_penalty_on_the_control() -> None:
    linear = stage(nn.Linear(3, 2, dtype=F64), admissible={"weight": Box(-0.3, 0.3), "bias": Box(-0.1, 0.1)})
    problem = ControlProblem([linear], SquaredError(), normal(20, 3), normal(20, 2, seed=1))
    (group,) = groups_of(problem)
    penalties = Penalties(0.0, 0.0, rho_control=5.0)
    found = CoordinateAscent(100).model(group).maximize(penalties)
    expected = linear.admissible.project(group.control + hamiltonian_gradient(group) / 5.0)
    assert_close(found, expected, 1e-9)
    assert linear.admissible.contains(found).all()
    assert float((found - group.control).abs().max()) > 1e-3


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scales_of_the_data_change_no_ending(scale: float) -> None:
    """J is 1e40 and 1e-40 of what it is: finite, and falling."""
    lengths = []
    for scaled in (1.0, scale):
        problem = least_squares(0, scale=scaled)
        start = [scaled * control for control in problem.initial_controls()]
        found = ExtendedMSA(problem, start).solve(60, tolerance=1e-8 * scaled**2)
        assert found.converged
        lengths.append(len(found))
    assert abs(lengths[0] - lengths[1]) <= 1


def test_solvers_and_their_records_can_be_copied_and_pickled() -> None:
    solver = ExtendedMSA(split_problem(), penalty=PerStageEstimate())
    found = solver.solve(3, tolerance=1e-9)
    twin = copy.deepcopy(solver)
    assert twin.step().objective_after == solver.step().objective_after
    again = pickle.loads(pickle.dumps(found))
    assert (list(again), again.ending) == (list(found), found.ending)
