"""Theorem 4: with a penalty above twice the constant of Lemma 2, or with rejection, J never rises."""

import pytest
import torch
from penalty_trials import models_with, trial

from builders import linear_problem, mixed_problem, split_problem, tanh_problem
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import LBFGS, ByForm, ClosedForm, GaussNewton, Maximizer, RowGaussNewton
from pontryagin.problem import ControlProblem, Quadratic
from pontryagin.update import AcceptReject, ExtendedMSA, Fixed, Momentum, Secant, Trial
from pontryagin.update.acceleration import Acceleration, Plain
from pontryagin.update.perturbation import Perturbation

PROBLEMS = {
    "tanh": tanh_problem, "split": lambda: split_problem(cost=Quadratic(0.2)), "linear": linear_problem,
    "mixed": lambda: mixed_problem(["conv"], ["tanh", "norm"], seed=3),
}


@pytest.mark.parametrize(("name", "maximizer", "iterations"), [
    ("split", ClosedForm(0.0), 150), ("linear", ClosedForm(0.0), 150), ("tanh", GaussNewton(1e-3), 40),
    ("tanh", LBFGS(10), 25), ("mixed", LBFGS(5), 12), ("tanh", RowGaussNewton(1e-3), 40)], ids=str)
def test_a_large_fixed_penalty(name: str, maximizer: Maximizer, iterations: int) -> None:
    rho = 300.0
    solver = ExtendedMSA(PROBLEMS[name](), maximizer=maximizer, penalty=Fixed(Penalties(rho, rho)),
                         acceleration=Plain())
    records = list(solver.iterate(iterations))
    constant = max(record.estimate for record in records)
    assert rho > 2 * constant, "the penalty is too small for this test"
    for record in records:
        gap = record.optimality_gap
        assert gap > 0
        assert record.objective_after < record.objective_before
        change = record.objective_after - record.objective_before
        assert change <= -(1 - 2 * max(constant, 0.0) / rho) * gap + 1e-12 * record.objective_before


ACCELERATIONS: list[Acceleration] = [Plain(), Momentum(0.8), Secant()]


@pytest.mark.parametrize("name", ["split", "linear"])
@pytest.mark.parametrize("acceleration", ACCELERATIONS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("rho", [1e-3, 50.0])
def test_accept_reject_with_the_closed_form(rho: float, acceleration: Acceleration, name: str) -> None:
    assert_never_rises(PROBLEMS[name](), ClosedForm(), AcceptReject(rho=rho), acceleration, 60)


@pytest.mark.parametrize("name", ["tanh", "mixed"])
@pytest.mark.parametrize("perturbation", [None, Perturbation(0.3)], ids=["exact", "perturbed"])
def test_accept_reject_with_lbfgs(perturbation: Perturbation | None, name: str) -> None:
    assert_never_rises(PROBLEMS[name](), ByForm(other=LBFGS(4)), AcceptReject(rho=1e-2), Momentum(), 8,
                       perturbation)


def assert_never_rises(problem: ControlProblem, maximizer: Maximizer, rule: AcceptReject,
                       acceleration: Acceleration,
                iterations: int, perturbation: Perturbation | None = None) -> None:
    solver = ExtendedMSA(problem, maximizer=maximizer, penalty=rule, acceleration=acceleration,
                         perturbation=perturbation)
    last = None
    for record in solver.iterate(iterations):
        assert last is None or record.objective_before == last
        assert record.objective_after <= record.objective_before
        if record.accepted:
            enough = rule.sufficient * record.optimality_gap
            assert record.objective_before - record.objective_after >= enough
        else:
            assert record.objective_after == record.objective_before
        last = record.objective_after
    assert record.objective_after < 0.9 * solver_start(problem)


def solver_start(problem: ControlProblem) -> float:
    from builders import objective

    return float(objective(problem, problem.initial_controls()))


def test_a_negative_prediction_does_not_excuse_a_rise() -> None:
    rule = AcceptReject()
    rule.begin(models_with(1.0))
    assert not rule.accepts(trial(predicted=-1.0, achieved=-1e-6))
    assert not rule.accepts(trial(predicted=1.0, achieved=float("nan")))
    assert not rule.accepts(trial(predicted=float("nan"), achieved=1.0))
    assert rule.accepts(trial(predicted=1.0, achieved=0.5))


def test_a_rejection_raises_rho_and_an_acceptance_does_not() -> None:
    rule = AcceptReject(rho=4.0)
    rule.begin(models_with(0.1))
    assert rule.penalties() == [Penalties(4.0, 4.0)]
    assert not rule.accepts(trial(predicted=1.0, achieved=-1.5))  # c = 2.5, so rho is multiplied by 5
    assert rule.penalties()[0].rho_state == pytest.approx(20.0)
    assert rule.accepts(trial(predicted=1.0, achieved=0.9))  # c = 0.1, factor 0.2, kept to a half
    assert rule.penalties()[0].rho_state == pytest.approx(10.0)
    assert rule.accepts(trial(predicted=1.0, achieved=0.01))
    assert rule.penalties()[0].rho_state == pytest.approx(10.0)


def test_large_costates_weaken_their_penalty() -> None:
    rule = AcceptReject(rho=4.0, costate_weight=0.5)
    rule.begin(models_with(8.0))
    assert rule.penalties()[0].rho_state == 4.0
    assert rule.penalties()[0].rho_costate == pytest.approx(4.0 * 0.5 / 8)


def test_restart_begins_at_the_first_rho() -> None:
    rule = AcceptReject(rho=4.0, restart=True)
    rule.begin(models_with(1.0))
    rule.accepts(trial(predicted=1.0, achieved=-10.0))
    assert rule.penalties()[0].rho_state > 4.0
    rule.begin(models_with(1.0))
    assert rule.penalties()[0].rho_state == 4.0


def test_nothing_changes_when_every_trial_is_rejected() -> None:
    solver = ExtendedMSA(tanh_problem(), maximizer=LBFGS(3), penalty=Never(), acceleration=Plain())
    before = solver.controls
    (record,) = solver.solve(5)
    assert not record.accepted
    assert record.rejected == 3
    assert record.objective_after == record.objective_before
    assert record.trial_objective != record.objective_before
    assert all(torch.equal(now, then) for now, then in zip(solver.controls, before, strict=True))


class Never(Fixed):
    """Rejects three trials."""

    def __init__(self) -> None:
        super().__init__(Penalties(50.0, 1.0))
        self.attempts = 3

    def accepts(self, trial: Trial) -> bool:
        return False
