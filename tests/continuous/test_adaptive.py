"""Adaptive steps of torchdiffeq."""

from dataclasses import replace

import pytest
import torch
from continuous_builders import discretized

from builders import assert_close, normal
from pontryagin.continuous import RK4, Adaptive, solve
from pontryagin.problem import ProblemError
from pontryagin.trajectory import propagate
from pontryagin.update import NewtonMSA

torchdiffeq = pytest.importorskip("torchdiffeq")


@pytest.mark.parametrize("control", ["constant", "linear per sample"])
@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
def test_states_and_costates_are_those_of_many_small_steps(control: str, free: bool) -> None:
    adaptive = discretized(Adaptive(1e-11, 1e-11), control, free)
    small = discretized(RK4(), control, free, substeps=32)
    values = normal(*small.shape, seed=3, scale=0.5)
    found, truth = (propagate(on.control_problem(), on.controls(values)) for on in (adaptive, small))
    assert_close(found.states[-1], truth.states[-1], 1e-8)
    assert_close(found.terminal, truth.terminal, 1e-8)
    assert_close(found.costates[0], truth.costates[0], 1e-7)


def test_what_a_solution_on_a_mesh_is_worth() -> None:
    found = solve(discretized(RK4()))
    again = solve(replace(found.discretization, integrator=Adaptive()), found.values,
                  minimizer=lambda stages, controls: (controls, 0))
    assert 0 < abs(again.objective - found.objective) < 1e-3 * found.objective


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(ProblemError, match="cannot be batched over stages"):
        NewtonMSA(discretized(Adaptive()).control_problem()).step()
    with pytest.raises(ProblemError, match="tolerances > 0"):
        Adaptive(rtol=0.0)
    assert torchdiffeq.odeint is not torch
