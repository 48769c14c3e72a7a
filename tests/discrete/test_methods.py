"""The methods of training over discrete weights, by name."""

import pytest
import torch
from discrete_builders import batch, network
from torch import nn

from pontryagin.audit.sets import chosen
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Binary
from pontryagin.problem.admissible.names import NAMED
from pontryagin.run.baselines import inside, rounded, split_parameters
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import METHODS
from pontryagin.run.methods.discrete import set_named
from pontryagin.run.models import normalized_mlp
from pontryagin.run.objective import objective_named


def test_network_of_the_paper() -> None:
    model = normalized_mlp((1, 28, 28), 10, width=32)
    assert [tuple(weight.shape)
            for weight in split_parameters(model)[0]] == [(32, 784), (32, 32), (32, 32), (10, 32)]
    assert model(torch.rand(4, 1, 28, 28)).shape == (4, 10)
    assert len(model[-1]) == 2


@pytest.mark.parametrize("name", ["emsa", "li-hao", "bop", "binaryconnect"])
def test_methods_begin_alike_and_stay_in_the_set(name: str) -> None:
    model = network(Binary())
    with torch.no_grad():
        for weight in split_parameters(model)[0]:
            weight.uniform_(-0.1, 0.1)
    expected = [rounded(weight.detach(), Binary()) for weight in split_parameters(model)[0]]
    options = {} if name == "bop" else {"admissible": "binary"}
    trainer = METHODS[name].trainer(model, objective_named("squared-hinge"), options=options)
    weights = split_parameters(model)[0]
    assert all(torch.equal(one, other) for one, other in zip(weights, expected, strict=True))
    for number in range(3):
        trainer.set_factor(1 - number / 3)
        trainer.step(batch(number))
        assert all(inside(weight, Binary()) for weight in weights)


def test_li_hao_keeps_its_own_schedule() -> None:
    trainer = METHODS["li-hao"].trainer(network(Binary()), objective_named("squared-hinge"))
    trainer.set_factor(0.1)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [1.0, 1e-3]


@pytest.mark.parametrize(("name", "options", "message"), [
    ("emsa", {"admissible": "binari"}, "unknown admissible set"),
    ("emsa", {"admissible": "2:4-sparse"}, "multiple of 4"),
    ("li-hao", {"admissible": "binari"}, "unknown admissible set"),
    ("li-hao", {"admissible": "2:4-sparse"}, "expected a discrete set"),
    ("li-hao", {"admissible": "ternary-rows"}, "scale 1"),
    ("li-hao", {"rho": -1.0}, "rho >= 0"),
    ("bop", {"admissible": "ternary"}, "unknown option of bop"),
    ("bop", {"threshold": -1.0}, "threshold"),
    ("binaryconnect", {"admissible": "non-negative"}, "expected a discrete set"),
])
def test_wrong_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises((ExperimentError, ProblemError), match=message):
        METHODS[name].trainer(network(Binary()), objective_named("cross-entropy"), options=options)


@pytest.mark.parametrize("name", NAMED)
def test_a_name_means_the_same_set_in_training_and_in_audits(name: str) -> None:
    """int8 is rounded in another way there, to points of the same set."""
    torch.manual_seed(0)
    weight = torch.randn(6, 8, dtype=torch.float64)
    found, = chosen((name,)).values()
    point = found.project(weight)
    assert torch.allclose(set_named(name).project(point), point, rtol=1e-9, atol=0)
    spelt = {"int3": "3-bit", "int4": "4-bit", "int8": "8-bit", "2:4": "2:4-sparse"}.get(name, name)
    assert set_named(spelt) is set_named(name)
    assert chosen((spelt,)) == chosen((name,))


@pytest.mark.parametrize("name", NAMED)
def test_emsa_trains_over_every_set_that_has_a_name(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 3))
    trainer = METHODS["emsa"].trainer(model, objective_named("cross-entropy"), options={"admissible": name})
    for seed in range(3):
        assert trainer.step(batch(seed)).loss > 0
    wanted = set_named(name)
    assert all(wanted.contains(weight.detach()).all() for weight in split_parameters(model)[0])
