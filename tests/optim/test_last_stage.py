"""Targets of any size, and losses that say nothing of the outputs' scale."""

import copy
import io
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pontryagin.optim import EMSA
from pontryagin.optim.last_stage import grown, unit
from pontryagin.optim.promise import Running

NUMBER = st.floats(-1e30, 1e30)


@given(st.floats(0, 20), NUMBER, NUMBER)
def test_a_unit_grows_where_gradients_agree_and_falls_elsewhere(growth: float, own: float, along: float
                                                                 ) -> None:
    after = grown(growth, own, along)
    assert 0 <= after <= 20
    assert abs(after - growth) <= 0.55 * (1 + 1e-9)
    if own > 0 and along > 0.2 * own:
        assert after > growth or after == 20
    if own > 0 and along <= 0:
        assert after < growth or after == 0


@given(st.floats(1e-300, 1e300), NUMBER, st.floats(0, 20))
def test_what_it_promises_is_half_of_the_loss_at_most(left: float, own: float, growth: float) -> None:
    found = unit(left, own, growth)
    assert found >= 1
    assert found == 1 or found * own <= 0.5 * left * (1 + 1e-9)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1)).double()


def data(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    return x, (x[:, :1] * x[:, 1:2]).sin() + x[:, 2:3]


@cache
def trained(scale: float, rows: int = 12, steps: int = 400, offset: float = 0.0) -> tuple[float, EMSA]:
    """The loss of 512 samples, without the offset, in units of the targets."""
    model = network()
    optimizer = EMSA(model)
    for step in range(steps):
        x, y = data(rows, step)
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), scale * y) + offset
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.03 * (1 - step / steps)
        optimizer.step(loss=loss)
    optimizer.eval()
    x, y = data(512, 10**6)
    with torch.no_grad():
        return functional.mse_loss(model(x), scale * y).item() / scale**2, optimizer


@pytest.mark.parametrize("rows", [12, 64])
@pytest.mark.parametrize("scale", [1e2, 1e3])
def test_targets_of_any_size_are_learned(scale: float, rows: int) -> None:
    """By rows and by the polar step. Without a unit of its own less than half of such a loss goes."""
    assert trained(scale, rows)[0] < 5 * trained(1.0, rows)[0] + 0.02


@pytest.mark.parametrize("rows", [12, 64])
def test_what_is_added_to_the_loss_does_no_harm(rows: int) -> None:
    plain, with_offset = trained(1.0, rows)[0], trained(1.0, rows, offset=1000.0)[0]
    assert with_offset < 1.5 * plain + 0.01


@pytest.mark.parametrize("rows", [12, 64])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_scale_of_the_loss_means_nothing_to_the_unit(scale: float, rows: int) -> None:
    """In float32, where squares of such gradients are none."""
    growths = []
    for times in (1.0, scale):
        model = network().float()
        optimizer = EMSA(model)
        for step in range(30):
            x, y = data(rows, step)
            optimizer.zero_grad()
            loss = times * functional.mse_loss(model(x.float()), 1e3 * y.float())
            loss.backward()
            optimizer.step(loss=loss)
        growths.append(Running(*optimizer.param_groups[0]["promise"]).growth)
    assert growths[0] > 1
    assert growths[1] == pytest.approx(growths[0], rel=0.05)


def test_a_head_that_hardly_counts_is_not_thrown_about() -> None:
    torch.manual_seed(0)
    body, main, side = nn.Linear(5, 16).double(), nn.Linear(16, 1).double(), nn.Linear(16, 1).double()
    model = nn.ModuleList([body, main, side])
    optimizer = EMSA(model)
    for step in range(300):
        x, y = data(12, step)
        optimizer.zero_grad()
        hidden = body(x).tanh()
        loss = functional.mse_loss(main(hidden), y) + 1e-4 * functional.mse_loss(side(hidden), -y)
        loss.backward()
        optimizer.step(loss=loss)
    x, y = data(512, 10**6)
    assert functional.mse_loss(side(body(x).tanh()), -y) < y.square().mean()


@pytest.mark.parametrize("rows", [12, 64])
def test_a_loss_of_any_size_is_no_leap(rows: int) -> None:
    """After many steps whose gradients agreed, with a loss that allowed nothing more."""
    model, (x, y) = network(), data(rows, 0)
    optimizer, ends = EMSA(model), []
    for step in range(160):
        optimizer.zero_grad()
        (loss := functional.mse_loss(model(x), y)).backward()
        optimizer.step(loss=1e300 if step == 150 else loss)
        ends.append(loss.item())
    assert max(ends[150:]) < 0.5 * ends[0]


def test_the_last_stage_is_the_one_that_is_called_last() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(16, 1), nn.Linear(5, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).tanh())

    model = Backwards()
    optimizer = EMSA(model)
    x, y = data(12, 0)
    (loss := functional.mse_loss(model(x.float()), y.float())).backward()
    optimizer.step(loss=loss)
    assert Running(*optimizer.param_groups[0]["promise"]).place == 0  # head.weight


def test_it_goes_on_bitwise() -> None:
    """From a state, and as a copy, between two looks."""
    _, optimizer = trained(1e3, steps=37)
    optimizer.train()
    assert Running(*optimizer.param_groups[0]["promise"]).growth > 0
    model = optimizer._model
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    copied, copied_optimizer = copy.deepcopy((model, optimizer))
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    loaded = network()
    loaded_optimizer = EMSA(loaded)
    loaded.load_state_dict(weights)
    loaded_optimizer.load_state_dict(state)
    for step in range(40):
        x, y = data(12, step)
        for one, its in ((model, optimizer), (copied, copied_optimizer), (loaded, loaded_optimizer)):
            its.zero_grad()
            (loss := functional.mse_loss(one(x), 1e3 * y)).backward()
            its.step(loss=loss)
    for one in (copied, loaded):
        assert all(map(torch.equal, model.parameters(), one.parameters()))
