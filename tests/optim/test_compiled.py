"""The compiled passes are the plain formulas, and a step with them is one without."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pontryagin.optim import EMSA, compiled, polar_lengths, row_lengths
from pontryagin.optim.compiled_ahead import compile_ahead
from pontryagin.optim.joined import Segments
from pontryagin.optim.mean_variance import CompiledProbe
from pontryagin.optim.pack_step import PackStep
from pontryagin.optim.polar_pack_step import PolarPackStep
from pontryagin.optim.row_lengths import ARRAYS, Known, Layout

pytestmark = pytest.mark.skipif(compiled.compiler() is None, reason="numba is not installed")

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 40))
TYPES = st.sampled_from([np.float32, np.float64])


def drawn(shape: tuple[int, ...], kind: Any, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def close(found: np.ndarray, expected: np.ndarray, kind: Any) -> None:
    tolerance = 1e-5 if kind == np.float32 else 1e-12
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@given(shape=SHAPES, kind=TYPES, seed=st.integers(0, 99))
def test_passes(shape: tuple[int, int, int], kind: Any, seed: int) -> None:
    gradient, change, velocity, right = (drawn(shape, kind, 4 * seed + n) for n in range(4))
    mean, scale = drawn((shape[0], 1, shape[2]), kind, seed + 400), drawn(shape[:2], kind, seed + 500)
    inputs = shape[2] - 1
    own = np.empty(shape[:2])
    found = np.empty_like(right)
    compiled.centred(gradient, mean, found, own)
    expected = gradient - gradient[..., -1:] * mean
    close(found, expected, kind)
    close(own, np.linalg.norm(expected.astype(float), axis=2), kind)
    compiled.row_squares(gradient, shape[2], own)
    close(own, (gradient.astype(float)**2).sum(2), kind)
    sums = np.empty((5, *shape[:2]))
    compiled.measured(right, change, np.zeros((0, 0, 0), kind), inputs, sums)
    y, d = right.astype(float), change.astype(float)
    for one, whole in zip(sums, ((y**2).sum(2), (d[..., :inputs]**2).sum(2), (y * d)[..., :inputs].sum(2),
                                 y[..., -1]**2, d[..., -1]), strict=True):
        close(one, whole, kind)
    outside, whole = drawn((shape[0], 1, shape[2]), kind, seed + 600), change.copy()
    compiled.measured(right, whole, outside, inputs, np.empty_like(sums))
    close(whole, change + outside * right, kind)
    rows = np.empty(shape[:2])
    compiled.row_squares(change, inputs, rows)
    close(rows, sums[1], kind)
    scaled, promised, products = change.copy(), change.copy(), np.empty((2, shape[0]))
    compiled.scaled(scaled, scale)
    close(scaled, change * scale[..., None], kind)
    of_right, whole = change.copy(), np.empty_like(products)
    compiled.promised(promised, scale, gradient, gradient[:0], velocity, products)
    compiled.promised(of_right, scale, found, mean * (np.arange(shape[2]) < inputs), velocity, whole)
    close(promised, scaled, kind)
    close(of_right, scaled, kind)
    for one, other in zip(products, (scaled, velocity), strict=True):
        close(one, (gradient * other).astype(float).sum((1, 2)), kind)
    for one, other in zip(whole, (scaled, velocity), strict=True):
        given = found + found[..., -1:] * mean * (np.arange(shape[2]) < inputs)
        close(one, (given * other).astype(float).sum((1, 2)), kind)
    moved, direction = velocity.copy(), change.copy()
    compiled.nesterov(moved, direction, np.array([0.8], kind))
    close(moved, 0.8 * velocity + 0.2 * change, kind)
    close(direction, 0.8 * moved + 0.2 * change, kind)
    moved = velocity.copy()
    compiled.moved(moved, gradient, 0.9)
    close(moved, 0.9 * velocity + 0.1 * gradient, kind)


@pytest.mark.parametrize("shape", [(1, 128, 64), (1, 32, 784), (3, 7, 5), (1, 100, 1), (2, 1, 4)])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e30])
def test_probes_are_those_of_torch(shape: tuple[int, int, int], size: float) -> None:
    torch.manual_seed(0)
    rows = (torch.randn(shape) + 3 * torch.rand(shape[2])).relu() * size
    rows[0, 0, 0] = torch.inf if size > 1 else 0.0
    probe = CompiledProbe()
    probe.add(rows)
    found, (variance, mean) = probe.take(), torch.var_mean(rows, 1, correction=0)
    assert found is not None
    assert found.count == shape[1]
    torch.testing.assert_close((found.mean, found.variance), (mean, variance), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", [1e-25, 1e-12, 1.0, 1e12, 1e25])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_momentum_ahead_of_any_size(kind: Any, size: float) -> None:
    gradient, velocity = (drawn((2, 3, 4), kind, n) * kind(size) for n in (0, 1))
    ahead, squares, units = np.empty_like(gradient), np.empty((2, 6)), np.empty(2)
    compiled.averaged(gradient, velocity, ahead, 0.9, np.array([1.0, 2.0]), squares, units)
    weights = np.array([1.0, 2.0])[:, None, None]
    expected = weights * (0.9 * velocity.astype(float) + 0.1 * gradient) + 0.1 * gradient.astype(float)
    np.testing.assert_allclose(ahead * units[:, None, None], expected, rtol=1e-5, atol=1e-6 * size)
    np.testing.assert_allclose(squares[0].reshape(2, 3), (gradient.astype(float)**2).sum(2), rtol=1e-5)
    np.testing.assert_allclose(squares[1].reshape(2, 3), (expected**2).sum(2), rtol=1e-4)
    assert np.abs(ahead).max() < 1e11
    assert np.all(units == 1) == (1e-10 < size < 1e10)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_seen(bad: float) -> None:
    rows, sums = np.ones((1, 2, 3), np.float32), np.empty((5, 1, 2))
    rows[0, 1, 1] = bad
    compiled.measured(rows, rows, rows[:0], 2, sums)
    assert np.isfinite(sums).all(axis=(0, 1)).tolist() == [True, False]
    assert not np.isfinite(compiled.norms([torch.from_numpy(rows)])[0])


def known(outputs: int, parts: int, seed: int) -> tuple[Known, list[np.ndarray]]:
    draw = np.random.default_rng(seed)
    return (Known(*(draw.random(size) for size in (outputs, outputs, parts, parts))),
            [draw.random(size) for size in (outputs, outputs, outputs, parts, parts)])


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3), padding=st.integers(0, 2),
       steps=st.sampled_from([1, 19, 20, 500]), seed=st.integers(0, 99), has_units=st.booleans())
def test_formulas_of_arrays(lengths: list[int], padding: int, steps: int, seed: int, has_units: bool) -> None:
    """The same source, compiled."""
    padded = [length + padding for length in lengths]
    segments = Segments(lengths, padded, torch.device("cpu"))
    layout = Layout(segments.places, segments.inside, segments.lengths)
    means, (square, norm, share, silent, certain) = known(sum(padded), len(lengths), seed)
    units = norm + 1 if has_units else None

    def both(plain: Callable[..., Any], *arguments: Any) -> None:
        """Segments and layout in their places."""
        fast = ARRAYS.get(plain.__name__) or compiled.Compiled(plain, ARRAYS)
        expected = plain(*(segments if one is layout else one for one in arguments))
        compare(fast(*arguments), expected)

    both(row_lengths.row_lengths, means, square, norm, share, units, 0.95, steps, layout, silent)
    both(row_lengths.limited, square, certain, silent, layout)
    both(row_lengths.row_promises, silent, certain, means.square_weight, certain, 0.8, steps)
    sums = np.abs(drawn((5, len(square)), float, seed)) + 0.1
    sums[0] += sums[3]
    for is_half in (True, False):
        both(row_lengths.found_rows, sums, norm, share, segments.spread(certain), is_half)
    sizes = polar_lengths.Sizes(silent, certain, silent, means.peak)
    both(polar_lengths.momentum_length, sizes, certain, silent, steps)
    both(polar_lengths.renewed, square, certain, norm, 0.9, layout)
    both(polar_lengths.polar_scale, square, certain, silent, 1e-30, layout)


def compare(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            compare(one, other)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def network(kind: str) -> tuple[nn.Module, Callable[[torch.Generator], torch.Tensor]]:
    torch.manual_seed(0)
    if kind == "dense":
        model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 9, bias=False), nn.ReLU(),
                              nn.Linear(9, 2))
        return model.double(), lambda draw: torch.randn(5, 6, generator=draw).double()
    if kind == "data":
        model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 2))
        scales = torch.tensor([1.0, 30.0, 0.1, 1.0, 5.0, 1.0]).double()
        return model.double(), lambda draw: scales * torch.randn(14, 6, generator=draw).double()
    if kind == "polar":
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        return model.double(), lambda draw: torch.rand(40, 3, generator=draw).double()
    if kind == "wide":
        model = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 160), nn.ReLU(),
                              nn.Linear(160, 3))
        return model.double(), lambda draw: torch.randn(7, 300, generator=draw).double()
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
                          nn.ConvTranspose2d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(4 * 7 * 7, 2))
    return model.double(), lambda draw: torch.randn(4, 1, 8, 8, generator=draw).double()


def trained(kind: str, steps: int, scale: float = 1.0) -> torch.Tensor:
    (model, batch), draw = network(kind), torch.Generator().manual_seed(1)
    optimizer = EMSA(model)
    for _ in range(steps):
        x = batch(draw)
        optimizer.zero_grad()
        loss = scale * (model(x) - x.flatten(1)[:, :1].sin()).square().mean()
        loss.backward()
        optimizer.step(loss=loss)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("kind", ["dense", "data", "polar", "wide", "convolutions"])
@pytest.mark.parametrize("scale", [1.0, 1e-18, 1e18])
def test_a_step_without_is_the_same(kind: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 8 if kind == "polar" else 30  # which multiplies roundings
    found = trained(kind, steps, scale)
    monkeypatch.setattr(compiled, "fits", lambda like: False)
    monkeypatch.setattr(row_lengths, "compiler", lambda: None)
    torch.testing.assert_close(found, trained(kind, steps, scale), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("kind", "step"), [("dense", PackStep), ("data", PackStep),
                                            ("polar", PolarPackStep)])
def test_which_steps_are_taken(kind: str, step: type, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    real = step.propose  # type: ignore[attr-defined]
    monkeypatch.setattr(step, "propose", lambda self, *asked: taken.append(self) or real(self, *asked))
    trained(kind, 3)
    assert taken


class Other(torch.Tensor):
    """As a DTensor, which has no memory of its own."""


def test_norms() -> None:
    tensors = [torch.randn(3, 4), torch.randn(5), torch.zeros(2, 2)]
    expected = [one.norm().item() for one in tensors]
    assert compiled.norms(tensors) == pytest.approx(expected, rel=1e-6)
    assert compiled.norms([one.double() for one in tensors]) == pytest.approx(expected, rel=1e-6)
    large = compiled.norms([torch.full((4,), 1e30)])
    assert large == pytest.approx([2e30])
    for others in ([], [tensors[0].t()], [tensors[0].half()], [tensors[0], tensors[1].double()],
                   [torch.randn(3, dtype=torch.complex64)], [tensors[1].expand(3, 5)], [Other(tensors[1])]):
        assert compiled.norms(others) is None


def test_what_is_kept_on_disk_is_of_the_code_that_it_calls() -> None:
    def one(x: float) -> float:
        return x + 1

    def other(x: float) -> float:
        return x + 2

    def calling(x: float) -> float:
        return called(x)  # type: ignore[name-defined]  # noqa: F821

    first, second, third = (compiled.Compiled(calling, {"called": compiled.Compiled(each)})
                            for each in (one, other, one))
    names = [each.dispatcher.py_func.__qualname__ for each in (first, second, third)]
    assert names[0] == names[2] != names[1]
    assert (first(1.0), second(1.0)) == (2.0, 3.0)


def test_no_folder_to_keep_it_in(monkeypatch: pytest.MonkeyPatch) -> None:
    real = compiled.compiler().njit

    def njit(*arguments: Any, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*arguments, **options)

    monkeypatch.setattr(compiled.compiler(), "njit", njit)
    assert compiled.Compiled(lambda x: x + 1)(1) == 2


def test_a_numba_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("Numba needs NumPy 1.0 or less")

    monkeypatch.setattr(compiled, "import_module", broken)
    compiled.compiler.cache_clear()
    try:
        with pytest.warns(UserWarning, match="Numba needs NumPy 1.0 or less.: steps are not compiled"):
            assert compiled.compiler() is None
        assert not compiled.fits(torch.ones(1))
        assert compiled.Compiled(lambda x: x + 1)(1) == 2
    finally:
        compiled.compiler.cache_clear()


def test_a_step_after_one_that_is_not_compiled() -> None:
    """Tiny gradients between two refreshes, in a state that was read: every output goes on as in the run
    that was not interrupted."""
    def go(resumed: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 12)).double()
        optimizer, draw = EMSA(model, acceptance=None), torch.Generator().manual_seed(1)
        for step in range(48):
            if resumed and step == 40:
                state, optimizer = optimizer.state_dict(), EMSA(model, acceptance=None)
                optimizer.load_state_dict(state)
            optimizer.param_groups[0]["refresh_every"] = 50
            x = torch.randn(8, 20, generator=draw).double()
            optimizer.zero_grad()
            (model(x).square().mean() * (1e-20 if step == 40 else 1)).backward()
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(go(True), go(False))


@pytest.fixture(params=["sys.modules['numba'] = None", "os.environ['NUMBA_DISABLE_JIT'] = '1'"])
def without(request: pytest.FixtureRequest) -> str:
    return request.param


def test_without_numba(without: str) -> None:
    program = f"""
import os, sys
{without}
import torch
from pontryagin.optim import EMSA, compiled
assert compiled.compiler() is None
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
optimizer = EMSA(model)
for step in range(200):
    x = torch.randn(16 if step else 17, 4)
    optimizer.zero_grad()
    loss = (model(x) - x[:, :1].sin()).square().mean()
    loss.backward()
    optimizer.step(loss=loss)
print(loss.item())
"""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 0.05


def test_ahead_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[PackStep | PolarPackStep] = []
    for kind in (PackStep, PolarPackStep):
        monkeypatch.setattr(kind, "take_again", lambda self, *_: taken.append(self))
    compile_ahead.cache_clear()
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    with torch.no_grad():
        compile_ahead(torch.float32)
    assert torch.equal(torch.randn(2), expected)
    assert {type(one) for one in taken} == {PackStep, PolarPackStep}


def test_what_takes_long_to_compile_is_announced_once(monkeypatch: pytest.MonkeyPatch,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(compiled, "_LONG", 0.05)
    compiled._announce.cache_clear()
    for seconds, messages in ((0.0, 0), (0.4, 1), (0.4, 1)):
        one = compiled.Compiled(time.sleep)
        one.__dict__["dispatcher"] = time.sleep
        one(seconds)
        assert len(caplog.messages) == messages
        one(0.2)
        assert len(caplog.messages) == messages
    assert "once on this machine" in caplog.messages[0]
