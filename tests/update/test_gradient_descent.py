"""Proposition 5: with one gradient-ascent step as the argmax, MSA is gradient descent with
back-propagation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from builders import IMAGE_KINDS, VECTOR_KINDS, TanhAffine, assert_all_close, mixed_problem, normal, objective
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import GradientAscent, StageByStage
from pontryagin.problem import ControlProblem, CrossEntropy, stage
from pontryagin.update import MSA, ExtendedMSA, Fixed
from pontryagin.update.acceleration import Plain

kinds = {"image": st.lists(st.sampled_from(IMAGE_KINDS), max_size=2),
         "vector": st.lists(st.sampled_from(VECTOR_KINDS), max_size=3), "seed": st.integers(0, 10**4)}


def sgd(problem: ControlProblem, rate: float, steps: int) -> list[Tensor]:
    """Controls after steps of torch's SGD on J."""
    controls = [control.requires_grad_() for control in problem.initial_controls()]
    optimizer = torch.optim.SGD([control for control in controls if control.numel()], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(problem, controls).backward()
        optimizer.step()
    return [control.detach() for control in controls]


@given(**kinds, rho=st.floats(1e-3, 1e3))
def test_with_penalties_a_stage_takes_the_longest_half_of_it_that_does_not_lower_its_hamiltonian(
        image: list[str], vector: list[str], seed: int, rho: float) -> None:
    problem = mixed_problem(image, vector, seed)
    solver = ExtendedMSA(problem, maximizer=GradientAscent(0.05), penalty=Fixed(Penalties(rho, 2 * rho)),
                         acceleration=Plain())
    start = solver.controls
    record = solver.step()
    whole = sgd(problem, 0.05, 1)
    for new, old, full in zip(solver.controls, start, whole, strict=True):
        if not new.numel() or float((full - old).norm()) < 1e-9:
            continue
        ratio = float((new - old) @ (full - old) / (full - old).square().sum())
        assert ratio == 0 or abs(math.log2(ratio) - round(math.log2(ratio))) < 1e-6
        assert_all_close([new - old], [ratio * (full - old)], 1e-6)
    assert record.optimality_gap >= rho * sum(0.5 * one.state_error + one.upstream * one.costate_error
                                              for one in record.stages) - 1e-12


@given(**kinds)
def test_one_step_is_one_step_of_sgd(image: list[str], vector: list[str], seed: int) -> None:
    problem = mixed_problem(image, vector, seed)
    solver = MSA(problem, maximizer=GradientAscent(0.05))
    solver.step()
    assert_all_close(solver.controls, sgd(problem, 0.05, 1), 1e-12)


@pytest.mark.parametrize("maximizer", [GradientAscent(0.02), StageByStage(GradientAscent(0.02))], ids=str)
def test_ten_steps_are_ten_steps_of_sgd(maximizer: GradientAscent) -> None:
    problem = mixed_problem(["conv"], ["split", "norm", "tanh"], seed=5)
    solver = MSA(problem, maximizer=maximizer)
    records = list(solver.iterate(10))
    assert_all_close(solver.controls, sgd(problem, 0.02, 10), 1e-10)
    assert records[-1].objective_after < records[0].objective_before


def test_it_is_sgd_on_the_torch_module() -> None:
    """The same network as one torch module, its own parameters, torch's mean cross-entropy."""
    torch.manual_seed(0)
    f64 = torch.float64
    layers = [nn.Conv2d(1, 2, 3, dtype=f64), nn.Tanh(), nn.Flatten(), nn.Linear(8, 4, dtype=f64),
              TanhAffine(4), nn.LayerNorm(4, dtype=f64), nn.Linear(4, 3, bias=False, dtype=f64)]
    images, labels = normal(6, 1, 4, 4), torch.arange(6) % 3
    solver = MSA(ControlProblem([stage(layer) for layer in layers], CrossEntropy(), images, labels),
                 maximizer=GradientAscent(0.1))
    network = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        solver.step()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    expected = [torch.cat([torch.empty(0, dtype=f64),
                           *(value.detach().flatten() for value in layer.parameters())])
                for layer in layers]
    found = [control.to(f64) for control in solver.controls]
    assert_all_close(found, expected, 1e-11)
