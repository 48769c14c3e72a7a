"""Every admissible set: projections are nearest points, membership is exact, requests that make no sense are
refused."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from builders import normal
from pontryagin.problem import (
    L0,
    L1,
    Binary,
    Box,
    Codebook,
    DiscreteSet,
    KSparse,
    MatrixSet,
    NonNegative,
    PerParameter,
    ProblemError,
    RealSpace,
    Ternary,
    TwoFourSparse,
    UnitNormRows,
    split_euler,
    stage,
)
from pontryagin.problem.admissible.grid import Grid, best_scale

SETS: dict[str, MatrixSet] = {
    "box": Box(-0.5, 0.8), "non-negative": NonNegative(), "binary": Binary(), "binary 0.3": Binary(0.3),
    "binary row": Binary("row"), "ternary": Ternary(), "ternary 0.7": Ternary(0.7),
    "ternary row": Ternary("row"),
    "3 bits": Codebook(3), "4 bits of 0.1": Codebook(4, 0.1), "8 bits": Codebook(8), "k": KSparse(2),
    "share": KSparse(share=0.5),
    "2:4": TwoFourSparse(), "sphere": UnitNormRows(),
}
DISCRETE = {name: one for name, one in SETS.items() if isinstance(one, DiscreteSet)}
each_set = pytest.mark.parametrize("one", SETS.values(), ids=SETS)
each_discrete = pytest.mark.parametrize("one", DISCRETE.values(), ids=DISCRETE)
each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])


@each_set
@each_dtype
def test_projections_lie_in_the_set_and_stay(one: MatrixSet, dtype: torch.dtype) -> None:
    weight = normal(3, 5, 8, seed=1).to(dtype)
    projected = one.project(weight)
    assert projected.dtype == dtype
    assert one.contains(projected).tolist() == [True] * 3
    if not isinstance(one, UnitNormRows):
        assert torch.equal(one.project(projected), projected)


@each_set
def test_membership_is_exact(one: MatrixSet) -> None:
    projected = one.project(normal(2, 5, 8, seed=2))
    moved = projected.clone()
    moved[1, 3, 2] = 0.123456789 if not isinstance(one, NonNegative) else -1e-300
    moved[1, 3] = moved[1, 3] if not isinstance(one, Box) else 0.8 + 1e-15
    if isinstance(one, KSparse | TwoFourSparse):
        moved[1, 3] = 1e-300
    assert one.contains(moved).tolist() == [True, False]
    for wrong in (float("nan"), float("inf")):
        projected[0, 0, 0] = wrong
        assert one.contains(projected).tolist() == [False, True]


@each_set
@given(seed=st.integers(0, 10_000))
def test_no_point_of_the_set_is_nearer(one: MatrixSet, seed: int) -> None:
    weight = normal(1, 4, seed=seed)
    nearest = (one.project(weight) - weight).norm()
    for other in range(60):
        point = one.project(weight + normal(1, 4, seed=other, scale=0.1 + other % 6))
        assert nearest <= (point - weight).norm() + 1e-9


@given(seed=st.integers(0, 10_000), limit=st.sampled_from([1, 2, 3]), step=st.sampled_from([1, 2]))
def test_scales_and_codes_are_globally_best(seed: int, limit: int, step: int) -> None:
    grid = Grid(step, limit)
    weight = normal(2, 4, seed=seed)
    codes, scales = best_scale(weight, grid)
    found = (codes * scales.unsqueeze(1) - weight).square().sum(1)
    every = torch.tensor(list(product(grid.codes, repeat=4)), dtype=torch.float64)
    square = every.square().sum(1)
    explained = torch.where(square > 0, (weight @ every.T).square() / square.clamp_min(1), 0.0)
    best = weight.square().sum(1) - explained.amax(1)
    torch.testing.assert_close(found, best, rtol=1e-9, atol=1e-12)


@each_discrete
@each_dtype
def test_codes_times_scales_are_the_matrix(one: DiscreteSet, dtype: torch.dtype) -> None:
    weight = one.project(normal(2, 5, 8, seed=3).to(dtype))
    codes, scales = one.encode(weight)
    assert codes.dtype == torch.int8
    assert set(codes.flatten().tolist()) <= set(one.grid.codes)
    assert torch.equal(codes * scales.unsqueeze(-1), weight)
    with pytest.raises(ProblemError, match="lies outside"):
        one.encode(weight + 1e-2)


def test_rows_without_large_codes_are_recognized() -> None:
    scale = 0.625
    codes = torch.tensor([[0, 2, -2, 0], [3, 1, 0, 2], [0, 0, 0, 0], [2, 3, -1, 0]], dtype=torch.float64)
    assert Codebook(3).contains(codes * scale)
    assert not Codebook(3).contains(codes * scale + torch.tensor([0.0, 1e-12, 0.0, 0.0]))
    assert not Ternary("row").contains(codes * scale)
    assert not Binary("row").contains(torch.zeros(2, 3))
    assert Ternary("row").contains(torch.zeros(2, 3))


def test_named_examples() -> None:
    row = torch.tensor([[0.2, -3.0, 0.0, 1.0, 0.4, 0.5, -0.6, 0.1]])
    assert Binary().project(row).tolist() == [[1, -1, 1, 1, 1, 1, -1, 1]]
    assert Ternary().project(row).tolist() == [[0, -1, 0, 1, 0, 1, -1, 0]]
    assert KSparse(2).project(row)[0].nonzero().flatten().tolist() == [1, 3]
    assert TwoFourSparse().project(row)[0].nonzero().flatten().tolist() == [1, 3, 5, 6]
    assert KSparse(share=0.25).count(8) == 2
    assert Binary("row").project(torch.tensor([[1.0, -3.0]])).tolist() == [[2.0, -2.0]]
    assert Ternary("row").project(torch.tensor([[1.0, -3.0, 3.0]])).tolist() == [[0.0, -3.0, 3.0]]


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "empty box": (lambda: Box(1, -1), "expected low <= high, found low=1, high=-1: the set is empty"),
    "box at infinity": (lambda: Box(float("inf"), float("inf")), "the set is empty"),
    "nan box": (lambda: Box(float("nan"), 1), "expected low <= high"),
    "scale of zero": (lambda: Binary(0.0), r"Binary: expected a finite scale > 0, or \"row\" .*, found 0.0"),
    "negative scale": (lambda: Ternary(-1.0), "expected a finite scale > 0"),
    "one bit": (lambda: Codebook(1), "expected bits from 2 to 8, found 1; for one bit use Binary"),
    "no entries": (lambda: KSparse(0), "expected k >= 1 non-zero entries per row, found 0"),
    "neither k nor share": (lambda: KSparse(), "expected either k or share"),
    "share": (lambda: KSparse(share=1.5), r"expected a share of the row in \(0, 1\], found 1.5"),
    "k of a row": (lambda: stage(nn.Linear(3, 2), admissible=KSparse(4)),
                   r"Linear, weight: KSparse\(k=4, share=None\): expected k <= 3, the length of a row, found "
                   r"4"),
    "2:4": (lambda: stage(nn.Linear(6, 2), admissible=TwoFourSparse()), "multiple of 4, found 6"),
    "no matrix": (lambda: stage(nn.LayerNorm(3, bias=False), admissible=Ternary()),
                  r"LayerNorm has no matrix for Ternary.* \(its parameters: weight\); name the parameter"),
    "no control": (lambda: stage(nn.Tanh(), admissible=Ternary()),
                   r"no matrix for .* \(its parameters: none\)"),
    "unknown name": (lambda: stage(nn.Linear(3, 2), admissible={"wait": Ternary()}),
                     "admissible names 'wait', but the parameters are weight, bias"),
    "zeros have no scale": (lambda: split_euler(torch.tanh, 3, 0.5, 1, admissible=Binary("row")),
                            "row 0 holds zeros only"),
    "zeros have no direction": (lambda: UnitNormRows().project(torch.zeros(2, 3)), "a row of zeros"),
    "negative L1": (lambda: L1(-1.0), "L1 running cost: expected a finite weight >= 0, found -1"),
    "nan L0": (lambda: L0(float("nan")), "L0 running cost: expected a finite weight >= 0, found nan"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make()


def test_a_stage_starts_in_its_set_and_biases_are_free() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    one = stage(linear, admissible=Binary())
    assert torch.equal(one.parameters(one.start)["weight"],
                       torch.where(linear.weight.detach() >= 0, 1.0, -1.0))
    assert torch.equal(one.parameters(one.start)["bias"], linear.bias.detach())
    assert isinstance(one.admissible, PerParameter)
    assert repr(one.admissible) == "{weight: Binary(scale=1.0)}"
    moved = one.start.clone()
    moved[0] = 0.5
    assert not one.admissible.contains(moved)
    with pytest.raises(ProblemError, match=r"the initial control lies outside \{weight: Binary"):
        replace(one, start=moved)


def test_sets_by_name_and_kernels_as_rows() -> None:
    both = stage(nn.Linear(4, 3), admissible={"weight": KSparse(1), "bias": Box(0.0, 0.1)})
    parts = both.parameters(both.start)
    assert (parts["weight"] != 0).sum(1).tolist() == [1, 1, 1]
    assert ((parts["bias"] >= 0) & (parts["bias"] <= 0.1)).all()
    conv = stage(nn.Conv2d(2, 3, 3), admissible=UnitNormRows())
    norms = conv.parameters(conv.start)["weight"].flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(3))
    free = stage(nn.Linear(4, 3), admissible={"weight": RealSpace()})
    assert free.admissible.unconstrained


def test_stages_with_equal_sets_are_batched() -> None:
    ones = [stage(nn.Linear(4, 4), admissible=Ternary("row")) for _ in range(2)]
    assert ones[0].matches(ones[1])
    assert not ones[0].matches(stage(nn.Linear(4, 4), admissible=Ternary()))


def test_running_costs() -> None:
    control = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 0.5]])
    assert L1(2.0)(control).tolist() == [6.0, 1.0]
    assert L0(2.0)(control).tolist() == [4.0, 2.0]


def test_a_large_codebook_is_projected_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    weight: Tensor = normal(7, 5, seed=5)
    whole = Codebook(4).project(weight)
    monkeypatch.setattr("pontryagin.problem.admissible.grid._CHUNK", 100)
    assert torch.equal(Codebook(4).project(weight), whole)
