"""The schedule of refreshes, which keeps to their budget, and the table of stages."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optim_builders import images, net, train
from torch import nn

from pontryagin.optim import EMSA, Metric
from pontryagin.optim.schedule import is_due, period, propagation_flops, refresh_flops

work = st.floats(1.0, 1e15)


@given(work, work, st.floats(1e-3, 1.0))
def test_refreshes_keep_to_their_share(refresh: float, step: float, share: float) -> None:
    every = period(refresh, step, share)
    assert 1 <= every <= 1000
    if every < 1000 and share * step >= 1:
        assert refresh / every <= share * step * (1 + 1e-12)
    if every > 1:
        assert refresh / (every - 1) > max(share * step, 1.0) * (1 - 1e-12)


@given(st.integers(1, 1000))
def test_due_at_the_first_step_then_at_doubling_distances_then_regularly(every: int) -> None:
    due = [step for step in range(1, 3 * every + 1) if is_due(step, every)]
    early = [step for step in due if step < every]
    assert early == [2**n for n in range(every.bit_length()) if 2**n < every]
    assert [step for step in due if step >= every] == [every, 2 * every, 3 * every]


def test_flops() -> None:
    assert propagation_flops(10, 3, 4) == 6 * 10 * 3 * 4
    assert refresh_flops(10, 4, 4, 2) > 2 * 2 * 10 * 16
    assert refresh_flops(10, 400, 8, 1) < refresh_flops(10, 400, 400, 1)


@pytest.mark.parametrize("budget", [0.1, 0.5, 100.0])
def test_modelled_refreshes_cost_no_more_than_the_budget(budget: float) -> None:
    model = net()
    optimizer = EMSA(model, metric=Metric(refresh_budget=budget))
    train(model, optimizer, 2, images)
    every = optimizer.param_groups[0]["refresh_every"]
    assert (every == 1) == (budget == 100.0)
    assert sum(row.refresh for row in optimizer.stages().rows) <= budget or every == 1000


def test_moments_are_renewed_when_due_only() -> None:
    model = net()
    optimizer = EMSA(model, metric=Metric(refresh_budget=1e-9))
    refreshes = []
    for step in range(9):
        train(model, optimizer, 1, images, first=step)
        refreshes.append(int(optimizer.state[model.head[0].weight]["refreshes"]))
    assert refreshes == [1, 2, 2, 3, 3, 3, 3, 4, 4]


def test_table() -> None:
    model = nn.Sequential(net(), nn.Linear(3, 300), nn.Linear(300, 3)).double()
    model.register_parameter("extra", nn.Parameter(torch.ones(2)))
    with pytest.warns(UserWarning, match="extra"):
        optimizer = EMSA(model, metric=Metric(metric_rank=4))
    before = optimizer.stages()
    assert all(row.share == 0 for row in before.rows)
    train(model, optimizer, 1, images)
    table = optimizer.stages()
    rows = {row.name: row for row in table.rows}
    assert list(rows) == ["0.features.0.weight", "0.features.1.weight", "0.head.0.weight", "0.head.1.weight",
                          "0.head.3.weight", "1.weight", "2.weight", "extra"]
    assert [row.kind for row in table.rows] == ["Conv2d", "BatchNorm2d", "Linear", "LayerNorm", "Linear",
                                                "Linear", "Linear", "-"]
    assert sum(row.share for row in table.rows) == pytest.approx(1)
    assert (rows["2.weight"].outputs, rows["2.weight"].inputs, rows["2.weight"].groups) == (3, 300, 1)
    assert (rows["0.features.1.weight"].outputs, rows["0.features.1.weight"].groups) == (1, 4)
    total = 6 * (12 * 9 * 36 + 12 * (36 * 8 + 24 + 900 + 900))
    assert rows["2.weight"].share == pytest.approx(6 * 12 * 900 / total)
    assert rows["2.weight"].maximized.endswith("subspace of 4")
    assert rows["1.weight"].maximized.endswith("full metric")
    assert rows["extra"].maximized == "AdamW"
    lines = str(table).splitlines()
    assert lines[0].split()[:2] == ["stage", "kind"]
    assert len(lines) == 10
    assert lines[-1].startswith("The loss is not known")
    assert "%" in lines[1]
