"""What uses derivatives by forward mode says nothing of what torch does at its first."""

import warnings
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest
import torch
from torch import Tensor

from builders import normal
from pontryagin.continuous import (
    ContinuousProblem,
    Discretization,
    ImplicitMidpoint,
    residual,
    solve,
    uniform,
)
from pontryagin.maximizer import GaussNewton, Maximizer, RowGaussNewton
from pontryagin.problem import ControlProblem, SquaredError, euler, forward_mode
from pontryagin.trajectory import propagate
from pontryagin.update import ExtendedMSA, NewtonMSA


def residual_network() -> ControlProblem:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2, dtype=torch.float64), torch.nn.Tanh())
    return ControlProblem(euler(net, 0.5, 2), SquaredError(), normal(4, 2, seed=0), normal(4, 2, seed=1))


def steered(integrator: ImplicitMidpoint | None = None) -> Discretization:
    def pulled(t: Tensor, x: Tensor, u: Tensor) -> Tensor:
        return u - x.sin()

    return Discretization(ContinuousProblem(
        pulled, normal(1, 1, seed=2), 1, 1.0, bounds=(0.0, 1.0),
        terminal_cost=lambda x, target: (x[:, 0] - 0.3) ** 2), uniform(1.0, 2),
        *([] if integrator is None else [integrator]))


def maximized_by(maximizer: Maximizer) -> Callable[[], object]:
    return lambda: ExtendedMSA(residual_network(), maximizer=maximizer).step()


def implicit() -> object:
    on = steered(ImplicitMidpoint())
    return propagate(on.control_problem(), on.controls(torch.full(on.shape, 0.5, dtype=torch.float64)))


USERS: dict[str, Callable[[], object]] = {
    "whole": maximized_by(GaussNewton()), "by rows": maximized_by(RowGaussNewton()),
    "newton": lambda: NewtonMSA(residual_network()).step(), "implicit midpoint": implicit,
    "residual": lambda: residual(solve(steered(), 0.5))}


@pytest.fixture
def torch_that_warns(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """At the first derivative, as torch 2.14 does."""
    read: list[str] = []

    def rules(name: str) -> None:
        read.append(name)
        warnings.warn("`torch.jit.script` is deprecated", FutureWarning, stacklevel=1)
        import_module(name)  # torch 2.14's own warning, where it has not come yet

    monkeypatch.setattr(forward_mode, "import_module", rules)
    forward_mode.load_rules.cache_clear()
    yield read
    forward_mode.load_rules.cache_clear()


@pytest.mark.parametrize("user", USERS)
def test_the_first_derivative_is_silent(user: str, torch_that_warns: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        USERS[user]()
        USERS[user]()
    assert torch_that_warns == ["torch._decomp.decompositions_for_jvp"]
