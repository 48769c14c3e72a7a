"""Few long steps first: which they are, when they are halved, and what the whole network is meanwhile."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pontryagin.cli import main
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import METHODS
from pontryagin.run.methods.multilevel import Multilevel
from pontryagin.run.models import ResidualStep, residual_cnn
from pontryagin.run.objective import OBJECTIVES

LOSS = OBJECTIVES["cross-entropy"]


def network(layers: int = 7) -> nn.Sequential:
    torch.manual_seed(0)
    return residual_cnn((1, 4, 4), 3, layers=layers, channels=4, step_size=0.2)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(16, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return images, images[:, 0, [0, 0, 3], [0, 3, 0]].argmax(1)


def steps(trainer: Multilevel) -> list[float]:
    """The lengths of the steps that are trained."""
    return [round(child.step_size, 9) for child in trainer.inner.model if isinstance(child, ResidualStep)]


def test_depths_follow_the_rate_and_weights_their_step() -> None:
    trainer = Multilevel(network(), LOSS, 0.03, 4, 0.2)
    seen = []
    for number in range(20):
        trainer.set_factor(1 - number / 20)
        trainer.step(batch(number))
        seen.append(steps(trainer))
    # shares of 0.2 and 0.1
    assert seen == [[0.8, 0.6]] * 16 + [[0.4, 0.4, 0.4, 0.2]] * 2 + [[0.2] * 7] * 2
    with trainer.evaluated() as whole:
        assert len(list(whole)) == 10


def test_the_whole_network_has_the_weights_of_the_few_steps() -> None:
    trainer = Multilevel(network(), LOSS, 0.03, 4, 0.2)
    trainer.step(batch(0))
    convs = [child.conv.weight for child in trainer.model if isinstance(child, ResidualStep)]
    assert all(torch.equal(weight, convs[0]) for weight in convs[:4])
    assert all(torch.equal(weight, convs[4]) for weight in convs[4:])
    assert not torch.equal(convs[0], convs[4])
    with trainer.evaluated() as whole:
        averaged = [child.conv.weight for child in whole if isinstance(child, ResidualStep)]
        assert torch.equal(averaged[0], averaged[3])


def test_a_halved_step_keeps_the_states_better_than_its_weights_do() -> None:
    """And with the first halves' weights as they were; the metric begins anew."""
    trainer = Multilevel(network(8), LOSS, 0.03, 4, 0.2)
    for number in range(10):
        trainer.step(batch(number))
    inputs = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        before, copied = trainer.inner.model(inputs), trainer.model(inputs)  # all steps, of equal weights
        firsts = [child.conv.weight.clone() for child in trainer.inner.model
                  if isinstance(child, ResidualStep)]
        trainer._halve(inputs)
        trainer._halve(inputs)
        after = trainer.inner.model(inputs)
    assert steps(trainer) == [0.2] * 8
    assert float((after - before).norm()) < 0.5 * float((copied - before).norm())
    convs = [child.conv.weight for child in trainer.inner.model if isinstance(child, ResidualStep)]
    assert torch.equal(convs[0], firsts[0])
    assert torch.equal(convs[4], firsts[1])


def test_it_goes_on_bitwise_where_steps_are_halved() -> None:
    def go_on(trainer: Multilevel, first: int, last: int) -> list[float]:
        losses = []
        for number in range(first, last):
            trainer.set_factor(1 - number / 20)
            losses.append(trainer.step(batch(number)).loss)
        return losses

    whole, half = (Multilevel(network(), LOSS, 0.03, 4, 0.2) for _ in range(2))
    expected, found = go_on(whole, 0, 20), go_on(half, 0, 16)
    again = Multilevel(network(), LOSS, 0.03, 4, 0.2)
    again.model.load_state_dict(half.model.state_dict())
    again.load_state_dict(half.state_dict())
    assert found + go_on(again, 16, 20) == expected


@pytest.mark.parametrize(("model", "ratio", "share", "words"), [
    (network(3), 4, 0.2, "ratio of 4 and 3 steps"), (network(), 3, 0.2, "a ratio of 3"),
    (network(), 4, 1.0, "share between 0 and 1"), (nn.Linear(2, 2), 4, 0.2, "and 0 steps")])
def test_what_has_no_steps_is_refused(model: nn.Module, ratio: int, share: float, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        METHODS["emsa-multilevel"].trainer(model, LOSS, options={"ratio": ratio, "share": share})


def test_command(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        main(["train", "--model", "residual-cnn", "--data", "digits", "--method", "emsa-multilevel",
              "--iterations", "12", "--batch-size", "20", "--out", str(out)])
    assert stop.value.code == 0
    results = json.loads((out / "summary.json").read_text())["results"]
    assert results["residual-cnn on digits"]["emsa-multilevel"]["train_loss"]["median"] < 2
