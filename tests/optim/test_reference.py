"""EMSA beside the plain file that says what it does: the same controls and averages after every step."""

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pontryagin.optim import EMSA, Metric, reference
from pontryagin.optim.reference import State

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


def compare(pair: Pair, rows: list[int], scales: list[float], options: dict[str, Any]) -> list[State]:
    """Train both; rows, scales: of the batches and losses in turn."""
    fast, plain = pair
    metric = {name: options[name] for name in ("damping", "exponent", "rho_decay") if name in options}
    others = {name: value for name, value in options.items() if name not in metric}
    optimizer = EMSA(fast, metric=Metric(**ALL, **metric), **others)
    states = [State(layer, **options) for layer in plain if isinstance(layer, nn.Linear)]
    for step in range(STEPS):
        kind = rows[step % len(rows)], step, scales[step * len(scales) // STEPS]
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


@settings(max_examples=40)
@given(widths=st.lists(st.integers(1, 9), min_size=2, max_size=5), biases=st.lists(st.booleans(), min_size=4,
                                                                                   max_size=4),
       activation=st.sampled_from(sorted(ACTIVATIONS)), rows=st.lists(st.integers(2, 24), min_size=1, max_size=3),
       lr=st.sampled_from([0.003, 0.03, 0.3]), damping=st.floats(0.01, 1), exponent=st.floats(0, 1),
       momentum=st.floats(0, 0.95), rho_decay=st.floats(0, 0.99), weight_decay=st.sampled_from([0.0, 0.3]),
       averaging=st.floats(0, 20), scales=st.lists(st.sampled_from([1.0, 1e-3, 1e4]), min_size=1, max_size=3))
def test_any_network(widths: list[int], biases: list[bool], activation: str, rows: list[int],
                     scales: list[float], **options: float) -> None:
    compare(networks(widths, biases, activation), rows, scales, options)
