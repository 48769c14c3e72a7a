"""The elementwise rules against enumeration of the set."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pontryagin.run.baselines.entries import (
    binary_argmax,
    binary_codes,
    binary_penalty,
    li_hao_penalty,
    ternary_argmax,
    ternary_codes,
)

BINARY, TERNARY = (-1.0, 1.0), (-1.0, 0.0, 1.0)


def enumerated(values: tuple[float, ...], m: Tensor, w: Tensor, r: float, l1: float) -> Tensor:
    """For each entry the value of H~ at every v: (value, entries). The binary penalty is r/2 (v - w)^2."""
    factor = 0.5 if values == BINARY else 1.0
    return torch.stack([m * v - l1 * abs(v) - factor * r * (v - w) ** 2 for v in values])


def drawn(values: tuple[float, ...], seed: int, count: int = 400) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = torch.tensor(values, dtype=torch.float64)[torch.randint(len(values), (count,), generator=generator)]
    return torch.randn(count, generator=generator, dtype=torch.float64), w


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0, 2), st.floats(0, 0.5))
def test_argmax_is_the_best_of_all_values(seed: int, r: float, l1: float) -> None:
    for values in (BINARY, TERNARY):
        m, w = drawn(values, seed)
        found = binary_argmax(m, w, r) if values == BINARY else ternary_argmax(m, w, r, l1)
        assert set(found.tolist()) <= set(values)
        table = enumerated(values, m, w, r, 0.0 if values == BINARY else l1)
        place = torch.tensor([values.index(v) for v in found.tolist()])
        torch.testing.assert_close(table.gather(0, place.unsqueeze(0)).squeeze(0), table.amax(0), rtol=0,
                                   atol=1e-12)


def test_binary_rule_is_the_sign_beyond_the_penalty() -> None:
    m, w = drawn(BINARY, 0)
    expected = torch.where(m.abs() > 0.7, m.sign(), w)
    assert torch.equal(binary_argmax(m, w, 0.7), expected)
    assert torch.equal(binary_argmax(m, w, 0.7), expected)


@pytest.mark.parametrize("values", [BINARY, TERNARY])
def test_penalty_is_the_largest_disagreement(values: tuple[float, ...]) -> None:
    m, w = drawn(values, 1)
    m[:20] = 0
    expected = 0.3 * m.abs()[w != m.sign()].max()
    assert li_hao_penalty(m, w, 0.3) == expected
    if values == BINARY:
        assert binary_penalty(m, w, 0.3) == expected


def test_nothing_moves_where_all_agree() -> None:
    m, w = torch.tensor([2.0, -0.5]), torch.tensor([1.0, -1.0])
    assert binary_penalty(m, w, 0.5) == 0
    assert li_hao_penalty(m, w, 0.5) == 0
    assert torch.equal(binary_argmax(m, w, 0.0), w)
    assert torch.equal(ternary_argmax(m, w, 0.0), w)
    assert torch.equal(binary_argmax(torch.zeros(2), w, 0.0), w)


def test_weak_weights_are_dropped() -> None:
    """With l1 above m + r the penalty on changing does not hold a weight."""
    assert ternary_argmax(torch.tensor([1e-9]), torch.tensor([1.0]), 0.0, 1e-7).item() == 0


def test_rounding() -> None:
    x = torch.tensor([[0.0, -0.2, 1.0, -0.8]])  # 0.7 mean |x| = 0.35
    assert binary_codes(x).tolist() == [[1.0, -1.0, 1.0, -1.0]]
    assert ternary_codes(x).tolist() == [[0.0, 0.0, 1.0, -1.0]]
