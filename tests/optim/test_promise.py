"""What a step may promise: the rule, where the loss comes from, and what it mends."""

import copy
import math
import pickle
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optim_builders import without_checked_types
from torch import Tensor, nn
from torch.nn import functional

from pontryagin import ProblemError
from pontryagin.errors import NonFiniteError
from pontryagin.optim import EMSA, Acceptance, Bound
from pontryagin.optim.promise import Outlook, Promise, Running, allowed


@given(st.floats(0, 1e300), st.floats(0, 1e300), st.floats(0.35, 1.6))
def test_who_promises_more_gets_less_and_never_nothing(one: float, other: float, free: float) -> None:
    less, more = sorted([one, other])
    assert 0.01 <= allowed(more, free) <= allowed(less, free) <= 1
    assert allowed(0.0, free) == 1
    assert allowed(free, free) == pytest.approx(0.5)


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.floats(1e-3, 1e3))
def test_a_lower_rate_makes_no_longer_step(one: float, other: float, slope: float) -> None:
    def length(rate: float) -> float:
        running = Running(slope, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0)
        return rate * Outlook(running, 1.0, 0.35, 2.0).length(Promise(slope * rate, 0.0), rate, 0)[1]

    low, high = sorted([one, other])
    assert length(low) <= length(high) * (1 + 1e-9)


def regression(scale: float = 1.0, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x = torch.randn(30, 5, dtype=torch.float64)
    return model, x, scale * torch.randn(30, 2, dtype=torch.float64)


class Passing:
    """A loop that makes the loss known in one of the ways there are."""

    def __init__(self, way: str, scale: float = 1.0, **settings: object) -> None:
        self.way, self.scale = way, scale
        self.model, self.x, self.y = regression()
        if way == "output":
            self.model = WithLoss(self.model)
        self.optimizer = EMSA(self.model, **settings)  # type: ignore[arg-type]

    def loss(self) -> Tensor:
        if self.way == "output":
            return self.model(self.x, self.y).loss * self.scale
        return self.scale * functional.mse_loss(self.model(self.x), self.y)

    def closure(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        return loss

    def step(self) -> float:
        if self.way == "closure":
            return self.optimizer.step(self.closure).item()
        loss = self.closure()
        passed = {"tensor": loss, "number": loss.item()}.get(self.way)
        self.optimizer.step(loss=passed)
        return loss.item()

    def controls(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])


class WithLoss(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, y: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=functional.mse_loss(self.inner(x), y))


def test_the_loss_may_come_in_four_ways() -> None:
    loops = [Passing(way) for way in ("tensor", "number", "closure", "output", "nothing")]
    for _ in range(8):  # every pass is looked at
        for loop in loops:
            loop.step()
    first, *others, without = [loop.controls() for loop in loops]
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-12, atol=1e-13)
    assert (without - first).norm() > 1e-3 * first.norm()


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e6, 1e20])
def test_the_scale_of_the_loss_means_nothing(scale: float) -> None:
    plain, scaled = Passing("tensor"), Passing("tensor", scale)
    for _ in range(20):
        plain.step(), scaled.step()
    torch.testing.assert_close(scaled.controls(), plain.controls(), rtol=1e-9, atol=1e-10)


class Sines(nn.Module):
    """Pre-activations whose unit is a thirtieth of that of the default rate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, width),
                                     nn.Linear(width, 1)])
        for number, layer in enumerate(self.layers):
            limit = 0.5 if number == 0 else (6 / width)**0.5 / 30
            nn.init.uniform_(layer.weight, -limit, limit)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.sin(30 * layer(x))
        return self.layers[-1](x)


@pytest.mark.parametrize(("width", "rows"), [(32, 40), (48, 200)])  # steps by rows, and polar ones
def test_a_sine_network_learns_only_where_the_loss_is_known(width: int, rows: int) -> None:
    def end(passed: bool) -> float:
        torch.manual_seed(0)
        model = Sines(width)
        x = 2 * torch.rand(400, 2) - 1
        y = torch.sin(6 * x[:, :1]) * torch.cos(6 * x[:, 1:])
        optimizer = EMSA(model)
        for k in range(120):
            optimizer.param_groups[0]["lr"] = 0.03 * (1 - k / 120)
            optimizer.zero_grad()
            batch = torch.randperm(400)[:rows]
            loss = functional.mse_loss(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step(loss=loss if passed else None)
        with torch.no_grad():
            return functional.mse_loss(model(x), y).item()

    assert end(True) < 0.02 < 0.15 < end(False)


def test_a_promise_is_the_slope_along_the_step() -> None:
    """At a first step, where there is no past: that of all stages, weights and biases, whatever the units."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 7), nn.LayerNorm(7), nn.Linear(7, 4)).double()
    groups = [{"params": model[:2].parameters()}, {"params": model[2:].parameters(), "lr": 0.01}]
    optimizer = EMSA(model, groups, acceptance=Bound(stretch=1.0))
    loss = 1e6 * model(torch.randint(9, (40, 2))).square().mean()
    loss.backward()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step(loss=1e12)
    slope = sum(((old - parameter) * parameter.grad).sum().item()  # type: ignore[operator]
                for old, parameter in zip(before, model.parameters(), strict=True))
    assert optimizer._maker.promise.total == pytest.approx(slope, rel=1e-7)


def test_a_loss_that_passes_through_zero_is_not_held_there() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 1), torch.randn(64, 3)
    optimizer, losses = EMSA(layer), []
    for _ in range(400):
        optimizer.zero_grad()
        loss = (layer(x) - x.sum(1, keepdim=True)).square().mean() - 1.0
        loss.backward()
        optimizer.step(loss=loss)
        losses.append(loss.item())
    assert losses[0] > 0 > -0.9 > losses[-1]


def test_a_stale_or_unknown_loss_leaves_the_step_as_it_is() -> None:
    loops = [Passing("nothing"), Passing("nothing", acceptance=None), Passing("tensor", acceptance=None)]
    for _ in range(20):
        for loop in loops:
            loop.step()
    torch.testing.assert_close(loops[1].controls(), loops[0].controls(), rtol=0, atol=0)
    torch.testing.assert_close(loops[2].controls(), loops[0].controls(), rtol=0, atol=0)


def test_the_table_says_whether_the_loss_is_known() -> None:
    known, unknown = Passing("tensor"), Passing("nothing")
    known.step(), unknown.step()
    assert "step(loss=loss)" in str(unknown.optimizer.stages())
    assert "step(loss=loss)" not in str(known.optimizer.stages())


def test_it_goes_on_exactly_from_a_saved_state() -> None:
    whole = Passing("tensor")
    for _ in range(5):
        whole.step()
    resumed = Passing("tensor")
    resumed.model.load_state_dict(whole.model.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    for _ in range(5):
        whole.step(), resumed.step()
    assert torch.equal(whole.controls(), resumed.controls())


class TakesAll:
    attempts = 1

    def judge(self, step_scale: float, predicted: float, loss: float, trial: float) -> tuple[bool, float]:
        return True, 1.0


def test_a_rule_is_asked_in_the_place_of_the_bound() -> None:
    loops = [Passing("closure", acceptance=TakesAll()), Passing("closure", acceptance=None),
             Passing("closure")]
    for _ in range(10):
        for loop in loops:
            loop.step()
    assert torch.equal(loops[0].controls(), loops[1].controls())
    assert not torch.equal(loops[0].controls(), loops[2].controls())
    assert "The loss" not in str(loops[0].optimizer.stages())


@pytest.mark.parametrize("acceptance", [None, Bound(stretch=1.0), Acceptance()])
def test_copies_and_pickles_go_as_far(acceptance: object) -> None:
    one = Passing("closure", acceptance=acceptance)
    other, third = copy.deepcopy(one), pickle.loads(pickle.dumps(one))
    for _ in range(6):
        one.step(), other.step(), third.step()
    assert torch.equal(one.controls(), other.controls())
    assert torch.equal(one.controls(), third.controls())


@pytest.mark.parametrize("acceptance", [Acceptance, Bound, "bound", 2.0, True])
def test_what_is_no_acceptance(acceptance: object) -> None:
    with without_checked_types(), pytest.raises(
            ProblemError, match=r"acceptance=Bound\(...\), Acceptance\(\), another rule or None"):
        Passing("closure", acceptance=acceptance)


@pytest.mark.parametrize("loss", [math.nan, math.inf, torch.tensor(math.nan)])
def test_a_loss_that_is_not_finite_changes_nothing(loss: object) -> None:
    loop = Passing("number")
    loop.step()
    before = loop.controls()
    loop.closure()
    with pytest.raises(NonFiniteError, match=r"loss.*nothing has been changed"):
        loop.optimizer.step(loss=loss)  # type: ignore[arg-type]
    assert torch.equal(loop.controls(), before)


@pytest.mark.parametrize("loss", [torch.ones(3), "0.3", [0.3]])
def test_a_loss_is_one_number(loss: object) -> None:
    loop = Passing("number")
    loop.closure()
    with pytest.raises(ProblemError, match="one number"):
        loop.optimizer.step(loss=loss)  # type: ignore[arg-type]


def test_accumulated_outputs_count_by_their_weight() -> None:
    """Two halves of a batch, each divided by two before it is backpropagated, are the batch."""
    whole, halves = Passing("output"), Passing("output")
    for _ in range(4):
        whole.step()
        halves.optimizer.zero_grad()
        for part in (slice(None, 15), slice(15, None)):
            (halves.model(halves.x[part], halves.y[part]).loss / 2).backward()
        halves.optimizer.step()
    torch.testing.assert_close(halves.controls(), whole.controls(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("settings", [{"stretch": 0.5}, {"stretch": math.inf}, {"floor": math.nan}])
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ProblemError, match="Bound: expected"):
        Bound(**settings)


def test_promises_are_measured_in_the_first_steps_then_in_every_second_and_where_none_is_known() -> None:
    """So that no step is unbounded whose loss becomes known late."""
    known = Running(1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.03)
    unknown = known._replace(slope=0.0, slope_weight=0.0)
    assert all(Outlook(known, 1.0).is_measured(steps) for steps in range(20))
    assert [Outlook(known, 1.0).is_measured(steps) for steps in (101, 102, 103)] == [False, True, False]
    assert Outlook(unknown, 1.0).is_measured(101)
    assert not Outlook(known).is_measured(0)


@pytest.mark.parametrize("late", [25, 26])
def test_a_loss_that_becomes_known_late_bounds_the_first_step(late: int) -> None:
    model, x, y = regression(1e-3)
    optimizer = EMSA(model)
    for number in range(late + 1):
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step(loss=loss if number == late else None)
    assert optimizer.param_groups[0]["promise"][1] > 0


@pytest.mark.parametrize("rows", [10, 30])
def test_gradients_that_vanish_at_once_promise_nothing_new(rows: int) -> None:
    """The loss stays: were nothing promised, momentum would run out at twice the length it had."""
    model, x, y = regression(1e-2)
    optimizer, known = EMSA(model), []
    for number in range(40):
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x[:rows]), y[:rows])
        (loss if number < 30 else 0 * loss).backward()
        optimizer.step(loss=loss)
        known.append(optimizer.param_groups[0]["promise"][:2])
    assert set(known[30:]) == {known[29]}
    assert known[28] != known[27]


def test_a_step_is_at_most_a_tenth_longer_than_the_one_before() -> None:
    """Promises that vanish at once, as those of a chain that dies, do not let steps leap."""
    running, lengths = Running(), []
    for steps in range(60):
        outlook = Bound().outlook(running, 1.0)
        slope = 100.0 if steps < 30 else 1e-6
        running, length = outlook.length(Promise(sure=slope * 0.03), 0.03, steps)
        lengths.append(length)
    assert lengths[29] < 0.1
    assert all(after <= 1.1 * before * (1 + 1e-12) for before, after in pairwise(lengths[5:]))
    assert lengths[-1] > 10 * lengths[29]
