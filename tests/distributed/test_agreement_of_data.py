"""Ranks that read other data of the same name are refused before any work."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, local
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from pontryagin.distributed import Alone
from pontryagin.errors import ProblemError
from pontryagin.run.facts import Facts, alike, facts_of, require_same_run
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


def task(train: Samples) -> Task:
    test = TensorSamples(torch.zeros(2, 3), torch.zeros(2))
    return Task("same name", lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2)),
                train, test, OBJECTIVES["cross-entropy"], {})


def facts(train: Samples) -> Facts:
    return facts_of(task(train))


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


class Two(Alone):
    """Two threads as ranks."""

    size, meeting, told = 2, Barrier(2), [None, None]

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def gather(self, value: Any) -> list[Any]:
        self.told[self.rank] = value
        self.meeting.wait(10)
        found = [*self.told]
        self.meeting.wait(10)
        return found


def refused(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each of two ranks says."""
    own, facts = local(), [facts_of(task) for task in tasks]
    monkeypatch.setattr("pontryagin.run.facts.present", lambda: own.communicator)

    def rank(number: int) -> str:
        own.communicator = Two(number)
        try:
            require_same_run({}, {}, facts[number], lambda: facts_of(tasks[number]))
        except ProblemError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(2) as threads:
        return [*threads.map(rank, range(2))]


class Drawing(Noisy):
    """By a generator of its own, without a seed."""

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return torch.randn(3, generator=self.generator), row % 2

    def __init__(self) -> None:
        self.generator = torch.Generator()
        self.generator.seed()


@pytest.mark.parametrize(("samples", "named"), [
    (lambda: DatasetSamples(Drawing()), ""), (lambda: DatasetSamples(Noisy()), ""),
    (lambda: TensorSamples(torch.randn(9, 3), torch.arange(9) % 2), "training data")])
def test_ranks_are_told_what_differs_first(samples: Callable[[], Samples], named: str,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused([task(samples()) for _ in range(2)], monkeypatch)
    assert said[0] == said[1]
    assert f"do not agree on the {named}:" in said[0] if named else not said[0]


def test_initial_weights_of_ranks_are_equal_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> torch.nn.Module:
        model = torch.nn.Linear(3, 2)
        model.weight.data[0, 0] += 1e-7
        return model

    one = task(TensorSamples(torch.ones(9, 3), torch.arange(9) % 2))
    two = [replace(one, build=made) for made in (lambda: torch.nn.Linear(3, 2), build)]
    said = refused(two, monkeypatch)
    assert "do not agree on the initial weights:" in said[0]
