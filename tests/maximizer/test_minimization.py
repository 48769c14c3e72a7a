"""L-BFGS on several functions at once: each as by itself, in as many calls as the slowest needs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import rosen, rosen_der
from torch import Tensor

from pontryagin.maximizer.minimization import Evaluate, minimize

KINDS = 3


def functions(kinds: Tensor, calls: list[int]) -> Evaluate:
    """By row: a bowl, a narrow valley, Rosenbrock's function; calls gets a number for each call."""

    def evaluate(points: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(int(wanted.sum()))
        scales = torch.logspace(0, 3, points.shape[1], dtype=points.dtype)
        values, slopes = torch.full_like(points[:, 0], torch.nan), torch.full_like(points, torch.nan)
        for n in wanted.nonzero().flatten().tolist():  # NaN elsewhere: it must not matter
            if kinds[n] == 2:
                values[n] = float(rosen(points[n].numpy()))
                slopes[n] = torch.from_numpy(rosen_der(points[n].numpy()))
            else:
                weights = torch.ones_like(scales) if kinds[n] == 0 else scales
                values[n], slopes[n] = 0.5 * (weights * points[n].square()).sum(), weights * points[n]
        return values, slopes

    return evaluate


@settings(max_examples=25)
@given(st.lists(st.integers(0, KINDS - 1), min_size=1, max_size=5), st.integers(0, 1000), st.integers(1, 12))
def test_each_as_by_itself_in_the_calls_of_the_slowest(kinds: list[int], seed: int, iterations: int) -> None:
    start = torch.randn(len(kinds), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    together: list[int] = []
    found = minimize(functions(torch.tensor(kinds), together), start, iterations, 5, 20)
    alone = []
    for n, kind in enumerate(kinds):
        own: list[int] = []
        single = minimize(functions(torch.tensor([kind]), own), start[n:n + 1], iterations, 5, 20)
        torch.testing.assert_close(found[n:n + 1], single, rtol=1e-9, atol=1e-12)
        alone.append(len(own))
    assert len(together) == max(alone)
    assert sum(together) == sum(alone)


@pytest.mark.parametrize(("kind", "solution"), [(0, 0.0), (1, 0.0), (2, 1.0)])
def test_reaches_the_minimum(kind: int, solution: float) -> None:
    start = torch.tensor([[-1.2, 1.0, 0.5, -0.3]], dtype=torch.float64)
    found = minimize(functions(torch.tensor([kind]), []), start, 200, 10, 30)
    torch.testing.assert_close(found, torch.full_like(found, solution), rtol=0, atol=1e-6)


def test_a_length_that_is_far_too_short_takes_few_trials() -> None:
    """The first trial is a step of length 1 at most; the minimum is at 1e4."""
    calls: list[int] = []

    def far(points: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return 0.5e-4 * (points[:, 0] - 1e4).square(), 1e-4 * (points - 1e4)

    found = minimize(far, torch.zeros(1, 1, dtype=torch.float64), 3, 5, 20)
    assert abs(float(found) - 1e4) < 1e-3
    assert len(calls) <= 8
