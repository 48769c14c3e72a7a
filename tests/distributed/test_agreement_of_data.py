"""Ranks that read other data of the same name are refused before any work."""

import torch
from torch.utils.data import Dataset

from pontryagin.run.facts import Facts, alike, facts_of
from pontryagin.run.objective import OBJECTIVES
from pontryagin.run.task import DatasetSamples, Samples, Task, TensorSamples


class Noisy(Dataset[tuple[torch.Tensor, int]]):
    """Its samples are drawn anew whenever they are read."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        if row >= len(self):
            raise IndexError
        return torch.randn(3), row % 2


def facts(train: Samples) -> Facts:
    test = TensorSamples(torch.zeros(2, 3), torch.zeros(2))
    return facts_of(Task("same name", lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2)),
                         train, test, OBJECTIVES["cross-entropy"], {}))


def test_lengths_shapes_and_content_are_told_apart() -> None:
    x, y = torch.randn(200, 3), torch.randint(2, (200,))
    changed = x.clone()
    changed[117, 2] += 1e-6
    found = [facts(TensorSamples(*data)) for data in (
        (x, y), (x[:-1], y[:-1]), (x.view(200, 3, 1), y), (changed, y), (x, 1 - y))]
    told = [one["training data"]["words"] for one in found]
    assert len({*told}) == len(found)
    assert len({one["test data"]["words"] for one in found}) == 1
    assert facts(TensorSamples(x.clone(), y.clone())) == found[0]
    assert told[0].startswith("200 samples of (3,), (), digest ")
    like = [alike("training data", found[0]["training data"], one["training data"]) for one in found]
    assert like == [True, False, False, True, False], "a last bit is not another data set"


def test_reading_samples_leaves_no_trace() -> None:
    before = torch.get_rng_state()
    assert facts(DatasetSamples(Noisy())) == facts(DatasetSamples(Noisy()))
    assert torch.equal(torch.get_rng_state(), before)
