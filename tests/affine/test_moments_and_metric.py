"""Streamed moments equal direct formulas, and the metric is the power of the damped second moment."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import builders
from pontryagin.affine import argmax, output_change
from pontryagin.affine.metric import (
    Diagonal,
    Factor,
    FactoredMoment,
    factorize,
    factorized,
    first_block,
    nystrom,
)
from pontryagin.affine.moments import IndexMoments, InputMoments, Moments

assert_close = partial(builders.assert_close, least=1e-5)
Sizes = tuple[int, int, int]
sizes = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 5))
seeds = st.integers(0, 10_000)
exponents = st.floats(0.05, 0.5)


def rows(size: Sizes, seed: int, offset: float = 1.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return offset + scale * torch.randn(*size, generator=generator, dtype=torch.float64)


def second_moment(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(1)
    shifted = x - mean.unsqueeze(1)
    return mean, shifted.mT @ shifted / x.shape[1]


def subspace(moment: Tensor, rank: int, previous: Tensor | None = None, iterations: int = 3) -> Factor:
    """The factor that refreshes with the same second moment lead to."""
    block = first_block(moment.shape[0], moment.shape[1], rank, moment) if previous is None else previous
    for _ in range(iterations):
        trace = moment.diagonal(dim1=1, dim2=2).sum(1)
        factor = nystrom(Moments(moment[..., 0], moment @ block, trace, block))
        block = factor.basis
    return factor


def power_of(moment: Tensor, damping: float, exponent: float) -> Tensor:
    """(A_c + delta I)^exponent of one matrix."""
    size = moment.shape[0]
    shift = damping * moment.diagonal().mean() * torch.eye(size, dtype=moment.dtype)
    values, vectors = torch.linalg.eigh(moment + shift)
    return vectors @ values.pow(exponent).diag() @ vectors.mT


@given(sizes, seeds, st.integers(1, 4))
def test_streamed_moments(size: Sizes, seed: int, parts: int) -> None:
    x = rows(size, seed)
    moments = InputMoments()
    assert moments.take() is None
    for part in x.chunk(parts, 1):
        moments.add(part)
    moments.add(x[:, :0])
    found, expected = moments.take(), second_moment(x)
    assert found is not None
    assert_close(found.mean, expected[0])
    assert_close(found.product, expected[1])
    assert_close(found.trace, expected[1].diagonal(dim1=1, dim2=2).sum(1))
    assert moments.take() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_with_a_large_mean(dtype: torch.dtype) -> None:
    """Uncentred, float32 sums would lose all digits of a spread of 1 at a mean of 3000."""
    x = rows((1, 400, 3), 0, 3000.0, 1.0 if dtype == torch.float32 else 30.0).to(dtype)
    moments = InputMoments()
    for part in x.split(50, 1):
        moments.add(part)
    found, expected = moments.take(), second_moment(x.double())
    assert found is not None
    assert found.product.dtype == torch.float32
    assert_close(found.mean.double(), expected[0], 1e-6)
    assert_close(found.product.double(), expected[1], 1e-4)


@given(sizes, seeds, st.integers(1, 4))
def test_streamed_products_with_a_block(size: Sizes, seed: int, parts: int) -> None:
    """A_c B and the trace of A_c, though A_c is never formed."""
    x, block = rows(size, seed, 5.0), rows((size[0], size[2], 2), seed + 1)
    moments = InputMoments(block)
    for part in x.chunk(parts, 1):
        moments.add(part)
    found, (mean, moment) = moments.take(), second_moment(x)
    assert found is not None
    assert_close(found.mean, mean)
    assert_close(found.product, moment @ block, 1e-8)
    assert_close(found.trace, moment.diagonal(dim1=1, dim2=2).sum(1), 1e-8)
    vector = rows((size[0], 1, size[2]), seed + 2).squeeze(1)
    found.add_outer(vector, 0.5)
    assert_close(found.product, (moment + 0.5 * vector.unsqueeze(2) * vector.unsqueeze(1)) @ block, 1e-8)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(1, 3))
def test_frequencies(indices: list[int], parts: int) -> None:
    tokens = torch.tensor(indices).reshape(1, -1, 1)
    moments = IndexMoments(6, torch.float64)
    for part in tokens.chunk(parts, 1):
        moments.add(part)
    moments.add(tokens[:, :0])
    found = moments.take()
    assert found is not None
    assert not found.mean.any()
    assert_close(found.product[0], torch.nn.functional.one_hot(tokens.flatten(), 6).double().mean(0))
    assert moments.take() is None


@given(sizes, seeds, st.floats(0.01, 2.0), st.floats(0.0, 1.0))
def test_solve_is_the_power(size: Sizes, seed: int, damping: float, exponent: float) -> None:
    _, moment = second_moment(rows((size[0], size[1] + size[2], size[2]), seed))
    right = rows((size[0], 2, size[2]), seed + 1)
    found = factorize(moment).solve(right, damping, exponent)
    for one, start, matrix in zip(found, right, moment, strict=True):
        assert_close(one, start @ power_of(matrix, damping, -exponent), 1e-8)


@given(seeds, exponents, exponents, st.sampled_from([2, 6]))
def test_powers_compose(seed: int, first: float, second: float, rank: int) -> None:
    _, moment = second_moment(rows((2, 20, 6), seed))
    right = rows((2, 3, 6), seed + 1)
    factor = factorize(moment) if rank == 6 else subspace(moment, rank)
    assert_close(factor.solve(factor.solve(right, 0.1, first), 0.1, second),
                 factor.solve(right, 0.1, first + second))


@given(sizes, seeds)
def test_squared_change_is_the_mean_over_rows(size: Sizes, seed: int) -> None:
    x = rows(size, seed)
    mean, moment = second_moment(x)
    change, bias = rows((size[0], 3, size[2]), seed + 1), rows((size[0], 3, 1), seed + 2).squeeze(2)
    factor = factorize(moment)
    z = (x - mean.unsqueeze(1)) @ change.mT
    assert_close(factor.squared_change(change), z.square().mean(1), 1e-8)
    moved = x @ change.mT + bias.unsqueeze(1)
    mean_change = (change @ mean.unsqueeze(2)).squeeze(2) + bias
    assert_close(output_change(change, mean_change, factor), moved.square().mean(1), 1e-8)


@given(sizes, seeds, st.sampled_from([0.0, 0.1]), exponents, st.booleans())
def test_measured_solve_is_solve_and_its_change(size: Sizes, seed: int, damping: float, exponent: float,
                                                whole: bool) -> None:
    _, moment = second_moment(rows((size[0], size[1] + size[2] + 1, size[2] + 1), seed))
    metrics: list[FactoredMoment] = [factorize(moment) if whole else subspace(moment, size[2]),
                             Diagonal(moment.diagonal(dim1=1, dim2=2))]
    for metric in metrics:
        right = rows((size[0], 3, size[2] + 1), seed + 1)
        change = metric.solve(right, damping, exponent)
        found, square, norm = metric.measured_solve(right.clone(), damping, exponent)
        assert_close(norm, change.norm(dim=2), 1e-10)
        assert_close(found, change, 1e-8)
        assert_close(square, metric.squared_change(change), 1e-7)


@given(sizes, seeds)
def test_argmax_tells_the_change_of_the_outputs(size: Sizes, seed: int) -> None:
    x = rows(size, seed)
    mean, moment = second_moment(x)
    gradient = rows((size[0], 3, size[2]), seed + 1)
    bias_gradient = rows((size[0], 3, 1), seed + 2).squeeze(2)
    change, bias, square = argmax(gradient, bias_gradient, mean, factorize(moment), 0.1, 0.5)
    assert bias is not None
    assert_close(square, (x @ change.mT + bias.unsqueeze(1)).square().mean(1), 1e-7)


def test_output_change_of_tokens() -> None:
    tokens = torch.tensor([0, 2, 2, 1, 2])
    frequencies = torch.nn.functional.one_hot(tokens, 4).double().mean(0)
    change = rows((1, 3, 4), 0)
    assert_close(output_change(change, None, Diagonal(frequencies[None]))[0],
                 change[0][:, tokens].square().mean(1))


def test_full_rank_subspace_is_exact() -> None:
    """Subspace iteration with one direction left out of a moment that has one direction less."""
    x = rows((1, 30, 5), 0)
    x[..., 4] = x[..., 0] - x[..., 1]
    _, moment = second_moment(x)
    right = rows((1, 2, 5), 1)
    assert_close(subspace(moment, 4).solve(right, 0.1, 0.5), factorize(moment).solve(right, 0.1, 0.5), 1e-7)


@pytest.mark.parametrize("warm", [False, True])
def test_isotropic_tail_is_exact(warm: bool) -> None:
    basis = torch.linalg.qr(rows((1, 12, 12), 0))[0]
    values = torch.tensor([900.0, 700.0, 500.0] + [1.0] * 9, dtype=torch.float64)
    moment = basis @ torch.diag(values) @ basis.mT
    factor = subspace(moment, 3, subspace(moment, 3).basis if warm else None)
    change = rows((1, 4, 12), 1)
    assert_close(factor.solve(change, 0.1, 0.5)[0], change[0] @ power_of(moment[0], 0.1, -0.5), 1e-5)
    assert_close(factor.squared_change(change), ((change @ moment) * change).sum(-1), 1e-5)
    assert_close(factor.mean_diagonal, moment.diagonal(dim1=1, dim2=2).mean(1))


def test_refreshes_find_the_leading_subspace() -> None:
    """One product a refresh, as in training: the error of the leading part falls to that of the best of the
    same rank."""
    values = torch.tensor([100.0, 50, 20, 10] + [0.1] * 16, dtype=torch.float64)
    basis = torch.linalg.qr(rows((1, 20, 20), 0))[0]
    moment = basis @ torch.diag(values) @ basis.mT
    factor = subspace(moment, 4, iterations=6)
    leading = (factor.basis * factor.values.unsqueeze(1)) @ factor.basis.mT
    best = (basis[..., :4] * values[:4]) @ basis[..., :4].mT
    assert_close(leading, best, 1e-6)
    assert_close(factor.tail, torch.tensor([0.1], dtype=torch.float64), 1e-6)


@given(seeds, st.integers(1, 5))
def test_subspaces_keep_the_trace_and_the_quadratic_form_positive(seed: int, rank: int) -> None:
    _, moment = second_moment(rows((2, 15, 6), seed))
    factor = subspace(moment, rank)
    assert_close(factor.mean_diagonal, moment.diagonal(dim1=1, dim2=2).mean(1))
    assert (factor.squared_change(rows((2, 3, 6), seed + 1)) >= 0).all()
    assert_close(factor.basis.mT @ factor.basis, torch.eye(rank, dtype=torch.float64).expand(2, -1, -1))


def test_diagonal_solve_is_the_power() -> None:
    frequencies = torch.tensor([[0.5, 0.3, 0.2, 0.0]], dtype=torch.float64)
    right = rows((1, 3, 4), 0)
    dense = power_of(frequencies[0].diag(), 0.1, -0.5)
    assert_close(Diagonal(frequencies).solve(right, 0.1, 0.5)[0], right[0] @ dense)
    assert not Diagonal(frequencies).solve(right, 0.0, 0.5)[..., 3].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("rank", [2, 6])
@pytest.mark.parametrize("kind", ["zero", "constant", "repeated", "one row"])
def test_degenerate_inputs_give_finite_steps(kind: str, rank: int, damping: float,
                                             dtype: torch.dtype) -> None:
    x = rows((1, 10, 6), 0)
    x = {"zero": 0 * x, "constant": torch.ones_like(x) * 1e3, "repeated": x[:, :2].repeat(1, 5, 1),
         "one row": x[:, :1]}[kind]
    moments = InputMoments()
    moments.add(x.to(dtype))
    taken = moments.take()
    assert taken is not None
    mean, moment = taken.mean, taken.product
    factor = factorize(moment) if rank == 6 else subspace(moment, rank)
    u = rows((1, x.shape[1], 3), 1).to(dtype)
    change, bias, _ = argmax(u.mT @ x.to(dtype), u.sum(1), mean, factor, damping, 0.5)
    assert change.isfinite().all()
    assert bias is not None
    assert bias.isfinite().all()
    for again in (factor.basis, None):
        nothing = torch.zeros_like(moment)
        zero = factorize(nothing) if rank == 6 else subspace(nothing, rank, again)
        assert all(part.isfinite().all() for part in (zero.basis, zero.values, zero.tail))


def test_factor_of_one_input_is_its_variance() -> None:
    moment = torch.tensor([[[4.0]], [[0.0]]])
    for metric in (factorize(moment), Diagonal(moment.squeeze(2))):
        assert_close(metric.solve(torch.ones(2, 1, 1), 0.0, 0.5).flatten(), torch.tensor([0.5, 0.0]))


def test_factorized_together_as_each_alone() -> None:
    """Exact and on a subspace, of one group and of several, in any order."""
    each = []
    for seed, (groups, inputs,
               rank) in enumerate([(1, 4, 0), (2, 9, 3), (3, 4, 0), (1, 9, 3), (1, 4, 2), (1, 9, 3)]):
        generator = torch.Generator().manual_seed(seed)
        seen = InputMoments(first_block(groups, inputs, rank, torch.zeros((), dtype=torch.float64)) if rank
                            else None)
        seen.add(torch.randn(groups, 30, inputs, generator=generator, dtype=torch.float64))
        taken = seen.take()
        assert taken is not None
        each.append(taken)
    for one, other, moments in zip(factorized(each, True), factorized(each, False), each, strict=True):
        if moments.block is None:
            assert torch.equal(other.values, factorize(moments.product).values)
            assert torch.equal(other.basis, factorize(moments.product).basis)
        for factor in (one, other):
            assert factor.basis.shape[0] == len(factor.tail)
        assert_close(one.values, other.values)
        right = torch.randn(one.basis.shape[0], 2, one.basis.shape[1], dtype=torch.float64)
        assert_close(one.solve(right, 0.1, 0.5), other.solve(right, 0.1, 0.5), 1e-8)
        assert_close(one.squared_change(right), other.squared_change(right), 1e-8)
