"""Inputs that are data are measured each in its own unit; what a network computes is not."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pontryagin.affine import Factor, Scaled
from pontryagin.errors import ProblemError
from pontryagin.optim import EMSA, stage
from pontryagin.optim.own_units import First, has_units, units
from pontryagin.optim.state import StageState

SCALES = torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0, 1.0])


def batch(step: int, rows: int, scales: Tensor) -> Tensor:
    return scales * torch.randn(rows, 6, generator=torch.Generator().manual_seed(step))


def target(x: Tensor, scales: Tensor) -> Tensor:
    return (x / scales).sum(1, keepdim=True).sin()


def trained(scales: Tensor, rows: int = 32, steps: int = 400) -> tuple[float, EMSA]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = EMSA(model)
    for step in range(steps):
        x = batch(step, rows, scales)
        optimizer.zero_grad()
        loss = (model(x) - target(x, scales)).square().mean()
        loss.backward()
        optimizer.step(loss=loss)
    optimizer.eval()
    x = batch(-1, 1000, scales)
    return (model(x) - target(x, scales)).square().mean().item(), optimizer


def has_own(optimizer: EMSA) -> list[bool]:
    """Of each stage."""
    return [StageState(state).has_units for state in optimizer.state.values() if "basis" in state]


def test_columns_of_any_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    own, optimizer = trained(SCALES)
    assert has_own(optimizer) == [True, False, False]
    monkeypatch.setattr(stage, "has_units", lambda first, inputs: False)
    without, optimizer = trained(SCALES)
    assert not any(has_own(optimizer))
    assert own < 0.3 * without


@pytest.mark.parametrize("kind", ["data", "features of frozen layers", "few rows", "many rows", "derived",
                                  "hidden"])
def test_whose_inputs_are_data(kind: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 8)
    first = nn.Linear(6, 6).requires_grad_(kind == "hidden")
    rows = {"few rows": 11, "many rows": 16}.get(kind, 12)
    x = torch.randn(rows, 6) * SCALES
    if kind == "derived":
        x.requires_grad_()
    if kind in ("features of frozen layers", "hidden"):
        x = first(x)
    optimizer = EMSA(layer)
    layer(x).square().mean().backward()
    optimizer.step()
    assert has_own(optimizer) == [kind in ("data", "features of frozen layers")]


def test_from_how_many_rows_on() -> None:
    assert has_units(First(12, True), 6)
    assert not any(has_units(*few) for few in [(First(11, True), 6), (First(12, False), 6),
                                               (First(9, True), 1)])


@given(inputs=st.integers(1, 6), seed=st.integers(0, 99), dead=st.booleans())
def test_units_leave_the_trace(inputs: int, seed: int, dead: bool) -> None:
    x = torch.randn(50, inputs, generator=torch.Generator().manual_seed(seed)).double() * SCALES[:inputs]
    if dead:
        x[:, 0] = 0
    moment = (x.mT @ x / 50).unsqueeze(0)
    found = units(moment)
    own = moment / found.unsqueeze(1) / found.unsqueeze(2)
    assert found.isfinite().all()
    torch.testing.assert_close(own.diagonal(dim1=1, dim2=2).sum(1), moment.diagonal(dim1=1, dim2=2).sum(1))
    if not dead:
        varied = own.diagonal(dim1=1, dim2=2)
        assert varied.max() < 1.5 * varied.mean()


def test_nothing_varies() -> None:
    assert torch.equal(units(torch.zeros(1, 3, 3)), torch.ones(1, 3))


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0])
def test_the_metric_of_scaled_inputs(exponent: float) -> None:
    """W' = W diag(unit) is what sees x' = x / unit."""
    torch.manual_seed(0)
    x, right = torch.randn(40, 4).double(), torch.randn(1, 3, 4).double()
    unit = torch.tensor([[[1.0, 5.0, 0.2, 2.0]]]).double()
    own = x.mT @ x / 40
    values, basis = torch.linalg.eigh(own)
    inner = Factor(basis[None], values[None], torch.zeros(1).double())
    metric, moment = Scaled(inner, unit), unit.mT * own * unit
    change, square, norm = metric.measured_solve(right, 0.1, exponent)
    expected = inner.solve(right / unit, 0.1, exponent) / unit
    torch.testing.assert_close(change, expected)
    torch.testing.assert_close(metric.solve(right, 0.1, exponent), expected)
    torch.testing.assert_close(right @ metric.power(0.1, exponent).product, expected)
    torch.testing.assert_close(square, (change @ moment * change).sum(2))
    torch.testing.assert_close(metric.squared_change(change), square)
    torch.testing.assert_close(norm, change.norm(dim=2))
    half = metric.half(right, 0.1, exponent)
    shifted = moment + 0.1 * values.mean() * (unit.mT * unit).diagonal(dim1=1, dim2=2).diag_embed()
    torch.testing.assert_close(half @ half.mT, change @ shifted @ change.mT)


@pytest.mark.parametrize("steps", [1, 7, 30])
def test_they_are_in_the_state(steps: int) -> None:
    _, optimizer = trained(SCALES, steps=steps)
    model = copy.deepcopy(optimizer._model)
    later = EMSA(model)
    later.load_state_dict(optimizer.state_dict())
    optimizer.train()
    model.load_state_dict(optimizer._model.state_dict())
    for step in range(steps, steps + 8):
        x = batch(step, 32, SCALES)
        for one in (optimizer, later):
            one.train()
            one.zero_grad()
            loss = (one._model(x) - target(x, SCALES)).square().mean()
            loss.backward()
            one.step(loss=loss)
    assert all(map(torch.equal, optimizer._model.parameters(), model.parameters()))


def test_a_state_without_is_refused() -> None:
    _, optimizer = trained(SCALES, steps=2)
    state = optimizer.state_dict()
    del state["state"][0]["input_unit"]
    with pytest.raises(ProblemError, match="input_unit"):
        EMSA(copy.deepcopy(optimizer._model)).load_state_dict(state)
