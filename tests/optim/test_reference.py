"""EMSA beside the plain file that says what it does: the same controls and averages after every step."""

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pontryagin.optim import EMSA, Metric, reference
from pontryagin.optim.reference import State
from pontryagin.optim.schedule import is_due

STEPS, TOLERANCE = 30, 1e-9
ALL = {"refresh_budget": 1e9, "metric_rank": 64, "moment_rows": None}
Pair = tuple[nn.Sequential, nn.Sequential]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU,
                                                   "none": nn.Identity}


def networks(widths: list[int], biases: list[bool], activation: str) -> Pair:
    """Two equal ones."""
    def built() -> nn.Sequential:
        torch.manual_seed(sum(widths))
        parts: list[nn.Module] = []
        for before, after, bias in zip(widths, widths[1:], biases, strict=False):
            parts += [nn.Linear(before, after, bias=bias), ACTIVATIONS[activation]()]
        return nn.Sequential(*parts[:-1]).double()

    return built(), built()


def batch(model: nn.Sequential, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs that lie away from 0, grow and come from elsewhere in every batch, and targets."""
    generator = torch.Generator().manual_seed(seed)
    sizes = model[0].in_features, model[-1].out_features
    x, y = (torch.randn(rows, size, generator=generator, dtype=torch.float64) for size in sizes)
    return x * (1 + 0.2 * (seed % 7)) + torch.randn((), generator=generator) + 0.5, y


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """The inputs of the linear layers in every call."""
    seen: dict[nn.Module, list[Tensor]] = {one: [] for one in model if isinstance(one, nn.Linear)}
    handles = [layer.register_forward_pre_hook(lambda layer, given: seen[layer].append(given[0].detach()))
               for layer in seen]
    yield seen
    for handle in handles:
        handle.remove()


def losses(model: nn.Sequential, rows: int, step: int, scale: float) -> None:
    """Gradients of a loss of this scale."""
    x, y = batch(model, rows, step)
    model.zero_grad()
    ((model(x) - y).square().mean() * scale).backward()


def assert_equal(found: Tensor, expected: Tensor, what: str) -> None:
    error, size = (found - expected).abs().max().item(), expected.abs().max().item()
    assert error <= TOLERANCE * size, f"{what}: {error / size:.1e} of {size:.1e}"


def compare(pair: Pair, rows: list[int], scales: list[float], options: dict[str, Any],
            steps: int = STEPS) -> list[State]:
    """Train both; rows, scales: of the batches and losses in turn."""
    fast, plain = pair
    metric = {name: options[name] for name in ("damping", "exponent", "rho_decay") if name in options}
    others = {name: value for name, value in options.items() if name not in metric}
    optimizer = EMSA(fast, metric=Metric(**ALL, **metric), **others)
    states = [State(layer, **options, are_data=n == 0) for n, layer in enumerate(
        one for one in plain if isinstance(one, nn.Linear))]
    for step in range(steps):
        kind = rows[step % len(rows)], step, scales[step * len(scales) // steps]
        losses(fast, *kind)
        optimizer.step()
        with recorded(plain) as seen:
            losses(plain, *kind)
        for state in states:
            reference.step(state, torch.cat(seen[state.layer]))
        for (name, found), expected in zip(fast.named_parameters(), plain.parameters(), strict=True):
            assert_equal(found, expected, f"{name} after step {step + 1}")
    assert optimizer.param_groups[0]["refresh_every"] == 1
    optimizer.eval()
    for layer, state in zip([one for one in fast if isinstance(one, nn.Linear)], states, strict=True):
        columns = [parameter.view(layer.out_features, -1) for parameter in layer.parameters()]
        assert_equal(torch.cat(columns, 1).detach(), state.average, "average")
    return states


@settings(phases=[Phase.generate])
@given(widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
       biases=st.lists(st.booleans(), min_size=4, max_size=4),
       activation=st.sampled_from(sorted(ACTIVATIONS)),
       rows=st.lists(st.integers(2, 24), min_size=1, max_size=3), lr=st.sampled_from([0.003, 0.03]),
       damping=st.floats(0.01, 1), exponent=st.floats(0, 1), momentum=st.floats(0, 0.95),
       rho_decay=st.floats(0, 0.99), weight_decay=st.sampled_from([0.0, 0.3]), averaging=st.floats(0, 20),
       scales=st.lists(st.sampled_from([1.0, 1e-3, 1e4]), min_size=1, max_size=3))
def test_any_network(widths: list[int], biases: list[bool], activation: str, rows: list[int],
                     scales: list[float], **options: float) -> None:
    compare(networks(widths, biases, activation), rows, scales, options)


@pytest.mark.parametrize("bias", [True, False])
def test_data_in_their_own_units(bias: bool) -> None:
    state, last = compare(networks([4, 8, 3], [bias, bias], "tanh"), [9], [1.0], {})
    assert (state.are_data, last.are_data) == (True, False)
    assert state.unit.max() > 1.01 * state.unit.min()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [5, 40])
def test_both_kinds_of_step(rows: int, bias: bool) -> None:
    states = compare(networks([4, 8, 3], [bias, bias], "tanh"), [rows], [1.0], {})
    assert {state.is_polar for state in states} == {rows == 40}


@pytest.mark.parametrize(("rows", "later"), [(5, 150), pytest.param(40, 950, marks=pytest.mark.slow)])
def test_gradients_that_fade_and_rise_again(rows: int, later: int) -> None:
    """One gradient is so much larger that all others have faded, until running means have forgotten it."""
    scales = [1.0] * 17 + [1e5] + [1.0] * later + [30.0] * 6
    state, = compare(networks([3, 2], [True], "none"), [rows], scales, {"rho_decay": 0.5}, len(scales))
    assert 0 < state.long.mean() < 1e-4 * state.peak


@pytest.mark.parametrize("rows", [5, 40])
def test_steps_that_reach_too_far(rows: int) -> None:
    """Inputs that hardly vary ask for more than 0.3 of the weights."""
    pair = networks([4, 3], [False], "none")
    for model in pair:
        model.register_forward_pre_hook(lambda model, given: (1e-4 * given[0],))
    before = pair[0][0].weight.detach().clone()
    compare(pair, [rows], [1.0], {"momentum": 0.0})
    assert torch.linalg.vector_norm(pair[0][0].weight - before) > 1


@pytest.mark.parametrize("rows", [5, 40])
def test_silent_outputs_and_inputs(rows: int) -> None:
    """Of a unit that never answers nothing comes and nothing is asked."""
    pair = networks([4, 6, 3], [True, True], "relu")
    for model in pair:
        model[0].bias.data[2] = -1e3
    compare(pair, [rows], [1.0], {"damping": 0.1})
    assert pair[0][0].bias[2] == -1e3


@pytest.mark.parametrize("rows", [5, 40])
def test_between_refreshes(rows: int) -> None:
    """One layer and always the same batch, so that inputs need no refresh, and probes see no growth."""
    fast, plain = networks([4, 3], [True], "none")
    optimizer, state = EMSA(fast, metric=Metric(moment_rows=None)), State(plain[0], are_data=True)
    x, y = batch(fast, rows, 0)
    for step in range(STEPS):
        for model in (fast, plain):
            model.zero_grad()
            (model(x).tanh() - y).square().mean().backward()
        is_refreshed = is_due(step + 1, optimizer.param_groups[0]["refresh_every"])
        looked = optimizer._stages.capture.is_on
        optimizer.step()
        reference.step(state, x, is_refreshed, looked)
        assert_equal(fast[0].weight, plain[0].weight, f"step {step + 1}")
    assert optimizer.param_groups[0]["refresh_every"] > 1


def test_rates_may_change() -> None:
    fast, plain = networks([4, 3], [True], "none")
    optimizer, state = EMSA(fast, metric=Metric(**ALL)), State(plain[0], are_data=True)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = state.lr = 0.05 * (1 - step / STEPS)
        for model in (fast, plain):
            losses(model, 9, step, 1.0)
        optimizer.step()
        reference.step(state, batch(plain, 9, step)[0])
        assert_equal(fast[0].weight, plain[0].weight, f"step {step + 1}")


def test_it_runs_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(reference.__file__, run_name="__main__")
    assert float(capsys.readouterr().out.rpartition(" ")[2]) < 1e-2


def test_it_is_short() -> None:
    with open(reference.__file__) as file:
        assert len(file.readlines()) <= 195
