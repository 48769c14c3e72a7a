"""Every network of the panel builds, learns and draws the same batches again."""

import pytest
import torch

from pontryagin.bench.panel.calibration import PACES
from pontryagin.bench.panel.networks import NETWORKS, SUBSET, digits
from pontryagin.bench.panel.trial import Trial, evaluated, started
from pontryagin.run.data.images import Images


@pytest.fixture(autouse=True)
def made_up_images(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(300, 1, 28, 28, generator=generator), torch.arange(300) % 10
    monkeypatch.setattr(digits, "load_images", lambda name, folder: Images(images, labels, images, labels))
    digits.digits.cache_clear()
    yield
    digits.digits.cache_clear()


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("method", ["adamw", "emsa"])
def test_every_network_takes_steps_and_draws_the_same_batches(name, method):
    work = NETWORKS[name].work(None)
    trial = Trial(name, method, 3, 0.003, 0.0, 0.0, 100)
    first = started(trial, work)
    for one, other in zip(next(work.batches(3)), next(work.batches(3)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    with first.generators():
        losses = [first.iterate().loss for _ in range(2)]
    if method == "adamw":
        again = started(trial, work)
        with again.generators():
            assert [again.iterate().loss for _ in range(2)] == losses
    assert all(torch.tensor(losses).isfinite())
    assert 0 < evaluated(first, work, next(work.batches(5))) < float("inf")
    assert first.trainer.model.training


def test_there_are_at_least_twenty_four_that_nothing_was_tuned_on_and_all_have_a_pace():
    assert sum(not one.tuned_on for one in NETWORKS.values()) >= 24
    assert set(PACES) == set(NETWORKS)
    assert set(SUBSET) < set(NETWORKS)
    assert not any(NETWORKS[name].tuned_on for name in SUBSET)


def test_methods_that_cost_more_have_fewer_iterations():
    network = NETWORKS["mlp-2-wide"]
    pace, _, muon, *_ = PACES["mlp-2-wide"]
    assert network.iterations("adamw", 10) == round(10 * pace)
    assert network.iterations("muon", 10) == round(10 * pace / muon)
    assert network.iterations("adamw", 1e-9) == 1


def test_images_are_moved_by_up_to_two_pixels():
    moved, labels = digits.digits(None).pixels(torch.Generator().manual_seed(1), 40)
    whole = digits.load_images("mnist", None)
    padded = torch.nn.functional.pad((whole.train * 255).round() / 255, (2, 2, 2, 2))
    for image, label in zip(moved, labels, strict=True):
        places = [padded[row, :, down:down + 28, right:right + 28] for row in range(300)
                  if whole.train_labels[row] == label for down in range(5) for right in range(5)]
        assert any(torch.allclose(image, place) for place in places)
