"""Stages that are stacked take the steps that each would take alone."""

from collections.abc import Callable, Sequence

import pytest
import torch
from optim_builders import assert_close, loss_of, vectors
from torch import nn

from pontryagin.optim import EMSA, Metric, share
from pontryagin.optim.group import StageGroup, TrainedStage, grouped

Grouping = Callable[[Sequence[TrainedStage]], list[StageGroup]]


@pytest.fixture
def groupings(monkeypatch: pytest.MonkeyPatch) -> list[list[StageGroup]]:
    """The groups that steps make, each time that they make some."""
    return recorded(monkeypatch, grouped)


def recorded(monkeypatch: pytest.MonkeyPatch, by: Grouping) -> list[list[StageGroup]]:
    found = []

    def grouping(stages: Sequence[TrainedStage]) -> list[StageGroup]:
        found.append(by(stages))
        return found[-1]

    monkeypatch.setattr(share, "grouped", grouping)
    return found


def deep(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(),
                         *(layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.Tanh(),
                                                                 nn.LayerNorm(6))), nn.Linear(6, 3)).double()


def trained(rank: int, steps: int = 6, freeze: int | None = None) -> tuple[nn.Module, EMSA]:
    model = deep()
    optimizer = EMSA(model, metric=Metric(metric_rank=rank, moment_rows=None, refresh_budget=1e9))
    for number in range(steps):
        if number == freeze:
            model[4].requires_grad_(False)
            model[4].weight.grad = model[4].bias.grad = None
        optimizer.zero_grad()
        loss_of(model, *vectors(seed=number)).backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("rank", [2, 32])
@pytest.mark.parametrize("freeze", [None, 3])
def test_stacked_is_one_by_one(rank: int, freeze: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a stage leaves its group on the way."""
    stacked = recorded(monkeypatch, grouped)
    together, _ = trained(rank, freeze=freeze)
    assert len(stacked[-1]) < 5
    apart = recorded(monkeypatch, lambda stages: [StageGroup([one]) for one in stages])
    alone, _ = trained(rank, freeze=freeze)
    assert len(apart[-1]) >= 9
    for one, same in zip(together.parameters(), alone.parameters(), strict=True):
        assert_close(one.detach(), same.detach(), 1e-10)


def test_groups_are_kept_while_the_same_stages_move(groupings: list[list[StageGroup]]) -> None:
    _, optimizer = trained(32)
    before = len(groupings)
    assert before
    optimizer.step()
    assert len(groupings) == before


@pytest.mark.parametrize(("width", "groups"), [(512, 1), (1024, 2)])
def test_large_stages_are_on_their_own(width: int, groups: int, groupings: list[list[StageGroup]]) -> None:
    """Two of a million weights, and two of a quarter of that."""
    model = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
    optimizer = EMSA(model)
    model(torch.randn(8, width)).square().mean().backward()
    optimizer.step()
    (found,) = groupings
    assert len(found) == groups
    assert sum(len(each.stages) for each in found) == 2


@pytest.mark.parametrize(("scale", "unit"), [(0.01, 0.1), (0.5, 0.5), (3.0, 1.0)])
def test_tables_move_in_units_of_their_own_size(scale: float, unit: float) -> None:
    moved = []
    for size in (scale, 1.0):
        torch.manual_seed(0)
        model = nn.Embedding(7, 4).double()
        with torch.no_grad():
            model.weight.copy_(model.weight / model.weight.square().mean().sqrt() * size)
        before = model.weight.detach().clone()
        optimizer = EMSA(model)
        (model(torch.arange(7)) * torch.linspace(-1, 1, 4, dtype=torch.float64)).sum().backward()
        optimizer.step()
        moved.append(model.weight.detach() - before)
    assert_close(moved[0], unit * moved[1])


@pytest.mark.parametrize("rows", [4, 60])
def test_momentum_dies_away_to_zero(rows: int) -> None:
    """Of a unit that has died, by rows and with many of them: no numbers are left that a processor is slow
    with."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    optimizer = EMSA(model, acceptance=None)
    x, y = torch.randn(rows, 5), torch.randn(rows, 3)
    smallest = torch.finfo(torch.float32).tiny
    for step in range(1400):
        if step == 20:
            with torch.no_grad():
                model[0].bias[2] = -1e3
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        optimizer.step()
    for layer in (model[0], model[2]):
        velocity = optimizer.state[layer.weight]["velocity"]
        assert not ((velocity != 0) & (velocity.abs() < smallest)).any()
        assert velocity.any()
