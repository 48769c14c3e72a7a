"""What every method of training promises to a run, whatever is inside. A new method is in METHODS and
inherits the suite."""

import io
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pontryagin.problem import NonFiniteError
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import METHODS, choose
from pontryagin.run.models import residual_cnn
from pontryagin.run.objective import OBJECTIVES
from pontryagin.run.trainer import Batch, Trainer

CLASSES = OBJECTIVES["cross-entropy"]
OPTIONS = {"emsa-paper": {"iterations": 3}}  # of L-BFGS: enough to learn, and quick
RESIDUAL = {"emsa-multilevel"}
"""Methods that need residual steps. Losses are those of the network that they step with, fewer steps."""


def network(name: str = "") -> nn.Module:
    torch.manual_seed(1)
    if name in RESIDUAL:
        return residual_cnn((1, 4, 4), 3, layers=6, channels=4, step_size=0.2)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(),
                         nn.Linear(8, 3))


def batches(first: int, last: int) -> Iterator[Batch]:
    """The class is the brightest of three corners."""
    for number in range(first, last):
        images = torch.randn(32, 1, 4, 4, generator=torch.Generator().manual_seed(number))
        yield images, images[:, 0, [0, 0, 3], [0, 3, 0]].argmax(1)


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.extra] if method.needs else [])
                        for name, method in METHODS.items()])
def name(request: pytest.FixtureRequest) -> str:
    if METHODS[request.param].needs:
        pytest.importorskip(METHODS[request.param].needs)
    return request.param


def make(name: str, model: nn.Module | None = None) -> Trainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return METHODS[name].trainer(network(name) if model is None else model, CLASSES,
                                     options=OPTIONS.get(name))


def run(trainer: Trainer, first: int, last: int, horizon: int = 12) -> list[float]:
    losses = []
    for number, batch in enumerate(batches(first, last), first):
        trainer.set_factor(1 - number / horizon)
        losses.append(trainer.step(batch).loss)
    return losses


def through_a_file(value: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def controls(trainer: Trainer) -> list[Tensor]:
    return [value.clone() for value in trainer.model.state_dict().values()]


def test_the_loss_is_that_of_the_batch_before_the_step(name):
    trainer = make(name)
    inputs, targets = next(batches(0, 1))
    expected = CLASSES.mean(trainer.model(inputs), targets).item()
    near = 0.1 if name in RESIDUAL else 1e-5
    assert trainer.step((inputs, targets)).loss == pytest.approx(expected, rel=near)


def test_it_learns(name):
    trainer = make(name)
    losses = run(trainer, 0, 60, horizon=120)
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_it_goes_on_bitwise_from_a_file(name):
    whole = make(name)
    expected = run(whole, 0, 12)
    first = make(name)
    losses = run(first, 0, 5)
    saved = through_a_file({"model": first.model.state_dict(), "trainer": first.state_dict()})
    model = network(name)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    model.load_state_dict(saved["model"])
    second = make(name, model)
    second.load_state_dict(saved["trainer"])
    assert losses + run(second, 5, 12) == expected
    for one, other in zip(controls(whole), controls(second), strict=True):
        assert torch.equal(one, other)


def test_evaluation_between_steps_leaves_no_trace(name):
    looked_at, left_alone = make(name), make(name)
    for batch, (inputs, _) in zip(batches(0, 6), batches(20, 26), strict=True):
        with looked_at.evaluated() as model, torch.no_grad():
            model.eval()
            model(inputs)
            model.train()
        losses = []
        for trainer in (looked_at, left_alone):
            torch.manual_seed(0)  # some begin at random
            losses.append(trainer.step(batch).loss)
        assert losses[0] == losses[1]


def test_what_is_not_finite_is_refused_and_changes_nothing(name):
    trainer = make(name)
    run(trainer, 0, 2)
    before = controls(trainer)
    inputs, targets = next(batches(0, 1))
    with pytest.raises(NonFiniteError):
        trainer.step((inputs * float("nan"), targets))
    for one, other in zip(before, controls(trainer), strict=True):
        assert torch.equal(one, other)


def test_the_factor_is_of_the_initial_rate():
    trainer = make("sgd")
    seen = []
    for factor in (1.0, 0.5, 0.25):
        trainer.set_factor(factor)
        seen += [group["lr"] for group in trainer.optimizer.param_groups]
    assert seen == pytest.approx([0.1, 0.05, 0.025])


def test_an_unknown_method_or_option_is_named():
    with pytest.raises(ExperimentError, match="'adan'"):
        choose(["adan"])
    with pytest.raises(ExperimentError, match=r"dampin.*expected damping"):
        METHODS["emsa"].trainer(network(), CLASSES, options={"dampin": 1.0})
    with pytest.raises(ExperimentError, match="rate"):
        METHODS["adam"].trainer(network(), CLASSES, rate=-1.0)
