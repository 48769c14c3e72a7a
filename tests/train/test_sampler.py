import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pontryagin.run.errors import ExperimentError
from pontryagin.run.task import Sampler


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_holds_every_row_once_but_the_rest(samples, batch_size, seed, epoch):
    if batch_size > samples:
        return
    sampler = Sampler(samples, batch_size, seed)
    rows = sampler.epoch(epoch)
    assert rows.shape == (sampler.batches, batch_size)
    assert len(rows.unique()) == rows.numel() == samples // batch_size * batch_size
    assert torch.equal(rows, Sampler(samples, batch_size, seed).epoch(epoch))


def test_seeds_and_epochs_differ():
    orders = {tuple(Sampler(100, 10, seed).epoch(epoch).flatten().tolist()) for seed in range(5)
              for epoch in range(5)}
    assert len(orders) == 25


def test_processes_share_the_batches_of_one():
    whole = Sampler(100, 12, 3).epoch(1)
    parts = [Sampler(100, 12, 3, rank, 4).epoch(1) for rank in range(4)]
    for number, batch in enumerate(whole):
        assert set(batch.tolist()) == {row for part in parts for row in part[number].tolist()}


@pytest.mark.parametrize("wrong", [(10, 11, 0), (10, 0, 0), (0, 1, 0), (10, 5, 0, 0, 2), (10, 4, 0, 2, 2)])
def test_what_cannot_be_sampled_is_refused(wrong):
    with pytest.raises(ExperimentError):
        Sampler(*wrong)
