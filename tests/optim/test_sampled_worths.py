"""The sample of worths that tells a quantile is of all inputs, whatever the shape of the matrix."""

import torch

from pontryagin.maximizer.grid_argmax import Pace, sampled


def test_the_sample_is_of_all_columns_and_comes_to_all_entries() -> None:
    columns = torch.arange(32).repeat(16384, 1)
    seen = torch.zeros(columns.numel(), dtype=torch.bool)
    entries = torch.arange(columns.numel()).view_as(columns)
    for step in range(40):
        pace = Pace(0.1, torch.zeros(()), step)
        counts = sampled(columns, pace).bincount(minlength=32)
        assert counts.min() > 0.75 * counts.float().mean()
        seen[sampled(entries, pace)] = True
    assert seen.float().mean() > 0.99
