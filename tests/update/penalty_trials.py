"""Trials and models of one linear stage, to tell a penalty rule what it sees."""

import torch
from torch import nn

from builders import groups_of, normal
from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer import ClosedForm, HamiltonianModel
from pontryagin.problem import ControlProblem, SquaredError, stage
from pontryagin.update import Trial


def models_with(costate_square: float) -> list[HamiltonianModel]:
    """One linear stage at which the mean of |p|^2 is this: p = -2 (z - y)."""
    linear = stage(nn.Linear(2, 2, dtype=torch.float64))
    state = normal(4, 2)
    costate = normal(4, 2, seed=1)
    costate *= (costate_square / costate.square().sum(1).mean()).sqrt()
    problem = ControlProblem([linear], SquaredError(), state, linear(state, linear.start) + costate / 2)
    return [ClosedForm().model(group) for group in groups_of(problem)]


def trial(predicted: float, achieved: float, before: float = 3.0) -> Trial:
    """A trial of one stage."""
    one = torch.ones(1, dtype=torch.float64)
    return Trial([Measures(predicted * one, one, one)], [Penalties(1.0, 1.0)], before, before - achieved)
