"""Glances at the states between refreshes: what is known follows them, and deep plain networks learn."""

from statistics import median_low as median

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optim_builders import assert_close, mlp, train, vectors
from torch import Tensor, nn

from pontryagin.optim import EMSA
from pontryagin.optim import emsa as emsa_module
from pontryagin.optim.budget import is_glance_due
from pontryagin.optim.growth import Glance, Spread, follow, lag
from pontryagin.problem import NonFiniteError

seeds = st.integers(0, 10_000)


def rows(groups: int, positions: int, inputs: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 + torch.randn(groups, positions, inputs, generator=generator, dtype=torch.float64)


def spread_of(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(1)
    return mean, (x - mean.unsqueeze(1)).square().sum(2).mean(1)


@given(seeds, st.integers(1, 4), st.integers(1, 3))
def test_a_glance_is_mean_and_variance_of_all_its_rows(seed: int, parts: int, groups: int) -> None:
    x, glance = rows(groups, 12, 5, seed), Glance()
    assert glance.take() is None
    for part in x.split([1, 2, 4, 5][:parts - 1] + [12 - sum([1, 2, 4, 5][:parts - 1])], 1):
        glance.add(part)
    glance.add(x[:, :0])
    found = glance.take()
    assert found is not None
    mean, variance = spread_of(x)
    assert_close(found.mean, mean)
    assert_close(found.variance, variance)
    assert found.count == 12
    assert glance.take() is None


@given(seeds, st.floats(1e-6, 1e6), st.booleans())
def test_the_known_variance_follows_and_never_lags_by_more_than_a_quarter(seed: int, scale: float, centred: bool) -> None:
    x = rows(2, 9, 4, seed) * scale
    mean, known = torch.ones(2, 4, dtype=torch.float64) * centred, torch.tensor([0.3, 5.0], dtype=torch.float64)
    expected = 0.85 * mean + 0.15 * x.mean(1) if centred else torch.zeros_like(mean)
    found = (x - (mean if centred else 0).unsqueeze(1) if centred else x).square().sum(2).mean(1)
    if centred:  # of the mixture of what was known and the batch, at its mean
        found = spread_of(x)[1] + 0.85 * (x.mean(1) - mean).square().sum(1)
    factor = follow(known, mean, [Spread(*spread_of(x), 9.0)], [2], centred)
    assert_close(known * factor, torch.where(found / 1.25 > known, 0.85 * found / 1.25, 0.85 * known) + 0.15 * found)
    assert (known * factor * 1.25 >= found * (1 - 1e-12)).all()
    assert_close(mean, expected)


def test_what_was_not_seen_or_has_no_variance_stays() -> None:
    mean, known = torch.ones(4, 3), torch.tensor([2.0, 0.0, 2.0, 2.0])
    infinite = Spread(torch.full((1, 3), torch.inf), torch.tensor([torch.inf]), 5.0)
    constant = Spread(torch.ones(1, 3), torch.ones(1), 5.0)
    unseen = Spread(torch.full((1, 3), torch.nan), torch.tensor([torch.nan]), torch.nan)
    for none in (None, unseen):
        factor = follow(known, mean, [none, constant, infinite, constant], [1, 1, 1, 1], True)
    assert torch.equal(factor[:3], torch.ones(3))
    assert torch.equal(mean, torch.ones(4, 3))
    assert factor[3].item() == pytest.approx(0.85 + 0.15 / 2)
    assert torch.equal(lag(known, torch.tensor([1.0, 1.0, 10.0, torch.nan])), torch.tensor([1.0, 1.0, 4.0, 1.0]))


def test_glances_come_in_each_of_the_first_steps_and_then_at_growing_distances() -> None:
    due = [step for step in range(1, 130) if is_glance_due(step)]
    assert due == [*range(1, 8), 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, *range(64, 130, 16)]


def test_a_trace_known_from_glances_is_that_of_the_inputs() -> None:
    """Between two refreshes inputs become 100 times as large: the metric is theirs but for the bound."""
    model = nn.Sequential(nn.Linear(5, 3)).double()
    optimizer = EMSA(model, budget=1e-9, lr=0.0)
    x, y = vectors(40, seed=1)
    variance = 100 * spread_of(x.unsqueeze(0))[1].sum().item()
    for step in range(1, 8):
        train(model, optimizer, 1, lambda seed: (x * (1 if seed < 5 else 10), y), first=step)
    state = optimizer.state[model[0].weight]
    assert int(state["refreshes"]) == 3  # in steps 1, 2 and 4
    known = state["values"].sum()
    assert 0.8 * variance <= known.item() <= 1.02 * variance
    assert_close(state["moment"].diagonal(dim1=1, dim2=2).sum(), known)


def trained(seed: int) -> tuple[float, float]:
    """Ten plain layers as torch initializes them, on digits: the loss at the end, and the largest of a batch on the way."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32)[:1024].flatten(1), torch.tensor(data.target)[:1024]
    x = (x - x.mean()) / x.std()
    torch.manual_seed(seed)
    layers = [part for _ in range(10) for part in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer, generator, largest = EMSA(model), torch.Generator().manual_seed(seed), 0.0
    for _ in range(80):
        batch = torch.randint(0, 1024, (100,), generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        largest = max(largest, loss.item())
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y).item(), largest


def test_a_deep_plain_network_learns_by_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals shrink from layer to layer at first, and known from refreshes alone they run away."""
    with_glances = [trained(seed) for seed in range(3)]
    monkeypatch.setattr(emsa_module, "is_glance_due", lambda step: False)
    without = [trained(seed) for seed in range(3)]
    assert median(with_glances)[0] < 0.3 * median(without)[0]
    assert median(peak for _, peak in with_glances) < 5 < median(peak for _, peak in without)


def test_gradients_of_one_batch_of_a_reused_layer_count_once() -> None:
    """A layer called twice: one glance at the rows of both calls."""
    torch.manual_seed(0)
    layer = nn.Linear(5, 5).double()
    model = nn.Sequential(layer, nn.Tanh(), layer)
    optimizer = EMSA(model, budget=1e-9)
    train(model, optimizer, 2, lambda seed: vectors(6, seed=seed))
    x = vectors(6, seed=9)[0]
    stage = optimizer._affine[0].captured
    assert stage.glancing
    model(x).sum().backward()
    found = stage.glance.take()
    both = torch.cat([x, layer(x).tanh()]).detach()
    assert found is not None
    assert_close(found.mean[0], both.mean(0))
    assert_close(found.variance[0], both.var(0, correction=0).sum())


def test_mlp_has_no_glance_left_after_a_refused_batch() -> None:
    model = mlp().double()
    optimizer = EMSA(model, budget=1e-9)
    train(model, optimizer, 2, lambda seed: vectors(12, seed=seed))
    x, y = vectors(12, seed=7)
    x[0, 0] = torch.nan
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    with pytest.raises(NonFiniteError, match="nothing has been changed"):
        optimizer.step()
    assert all(stage.captured.glance.take() is None for stage in optimizer._affine)
