"""Perturbations are seeded, move only where the argmax starts, and break symmetries."""

import pytest
import torch

from builders import TanhAffine, normal, split_problem, tanh_problem
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import LBFGS
from pontryagin.problem import ControlProblem, ProblemError, SquaredError, euler
from pontryagin.update import ExtendedMSA, Fixed
from pontryagin.update.acceleration import Plain
from pontryagin.update.perturbation import Perturbation


def run(perturbation: Perturbation | None, steps: int = 3) -> torch.Tensor:
    solver = ExtendedMSA(tanh_problem(), maximizer=LBFGS(2), penalty=Fixed(Penalties(20.0, 2.0)),
                         acceleration=Plain(), perturbation=perturbation)
    list(solver.iterate(steps))
    return torch.cat(solver.controls)


def test_equal_seeds_give_equal_runs() -> None:
    shared = Perturbation(0.1, seed=4)
    first = run(shared)
    assert torch.equal(first, run(shared))  # a solver works on its own copy
    assert torch.equal(first, run(Perturbation(0.1, seed=4)))
    assert not torch.equal(first, run(Perturbation(0.1, seed=5)))
    assert not torch.equal(first, run(None))


def test_a_scale_of_zero_changes_nothing() -> None:
    assert torch.equal(run(Perturbation(0.0)), run(None))


def test_calls_differ_and_controls_stay() -> None:
    problem = tanh_problem()
    controls, perturbation = problem.initial_controls(), Perturbation(0.5)
    first, second = perturbation(problem, controls), perturbation(problem, controls)
    assert all(torch.equal(a, b) for a, b in zip(controls, problem.initial_controls(), strict=True))
    assert not torch.equal(first[0], second[0])
    noise = torch.cat([a - b for a, b in zip(first, controls, strict=True)])
    assert 0.3 < float(noise.std()) < 0.7


def test_the_global_random_numbers_are_left_alone() -> None:
    solver = ExtendedMSA(tanh_problem(), maximizer=LBFGS(2), perturbation=Perturbation(0.1))
    before = torch.get_rng_state()
    solver.step()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_closed_form_does_not_depend_on_it() -> None:
    records = [ExtendedMSA(split_problem(), perturbation=one).step() for one in (None, Perturbation(1.0))]
    assert records[0].objective_after == records[1].objective_after


def test_it_breaks_the_symmetry_of_equal_components() -> None:
    """Equal features with equal weights stay equal for ever without a perturbation."""
    stages = euler(TanhAffine(2), 0.5, 2)
    x = normal(8, 1).expand(8, 2).clone()
    controls = [torch.full((6,), 0.1, dtype=torch.float64)] * 2
    spreads = []
    for perturbation in (None, Perturbation(0.1)):
        problem = ControlProblem(stages, SquaredError(lambda state: state.sum(1)), x, x[:, 0].sin())
        solver = ExtendedMSA(problem, controls, maximizer=LBFGS(3), perturbation=perturbation)
        list(solver.iterate(3))
        weight = solver.controls[0][:4].view(2, 2)
        spreads.append(float((weight[0] - weight[1]).abs().max()))
    assert spreads[0] < 1e-12
    assert spreads[1] > 1e-3


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
def test_bad_scales_are_refused(scale: float) -> None:
    with pytest.raises(ProblemError,
                       match=f"perturbation scale: expected a finite number >= 0, found {scale}"):
        Perturbation(scale)
