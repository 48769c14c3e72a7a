import pytest
import torch

from pontryagin.affine.metric import Factor, factorize
from pontryagin.affine.polar import polar_factor
from pontryagin.optim.polar_step import polar_step
from pontryagin.optim.state import StageState

DTYPE = torch.float64
QUINTICS = ((8.0934, -23.6205, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
"""a s + b s^3 + c s^5, one after the other."""


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=DTYPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 6, 9), (1, 9, 6), (2, 4, 30), (1, 30, 4), (1, 5, 5), (1, 1, 7)])
def test_the_polar_factor_keeps_directions_and_evens_out_lengths(shape):
    matrix = randn(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.mT @ polar_factor(matrix) @ right.mT
    lengths = inside.diagonal(dim1=1, dim2=2)
    assert (lengths > 0.5).all()
    assert (lengths < 1.3).all()
    torch.testing.assert_close(inside, torch.diag_embed(lengths), rtol=0, atol=1e-10)


def test_lengths_end_near_one_on_the_interval_of_the_quintics():
    """Of diagonal matrices with the singular values x and y, of which x^4 + y^4 = 1."""
    x = torch.logspace(-2, 0, 2000, dtype=DTYPE).clamp_max(1)
    found = polar_factor(torch.diag_embed(torch.stack([x, (1 - x**4)**0.25], 1)))[:, 0, 0]
    assert (found - 1).abs().max() < 0.272
    for a, b, c in QUINTICS:
        x = a * x + b * x**3 + c * x**5
    torch.testing.assert_close(found, x, rtol=1e-9, atol=0)


def test_iterating_the_gram_matrix_is_iterating_the_matrix():
    matrix = randn(2, 5, 40)
    x = matrix / (matrix @ matrix.mT).norm(dim=(1, 2), keepdim=True).sqrt()
    for a, b, c in QUINTICS:
        gram = x @ x.mT
        x = a * x + b * gram @ x + c * gram @ gram @ x
    torch.testing.assert_close(polar_factor(matrix), x, rtol=1e-10, atol=1e-12)


def test_zero_stays_zero():
    assert (polar_factor(torch.zeros(1, 3, 8, dtype=DTYPE)) == 0).all()


def stage(rows: torch.Tensor, outputs: int) -> tuple[StageState, Factor]:
    mean = rows.mean(0, keepdim=True)
    moment = ((rows - mean).mT @ (rows - mean) / len(rows)).unsqueeze(0)
    names = "velocity_weight", "square_weight", "size", "size_weight", "long_size", "peak"
    state = {name: torch.zeros(1, dtype=DTYPE) for name in names}
    state |= {"mean": mean, "velocity": torch.zeros(1, outputs, rows.shape[1], dtype=DTYPE),
              "bias_velocity": torch.zeros(1, outputs, dtype=DTYPE),
              "square": torch.zeros(1, outputs, dtype=DTYPE)}
    return StageState(state), factorize(moment)


def step(state: StageState, gradient: torch.Tensor, bias: torch.Tensor | None, factor: Factor):
    """The change of W and of b; the state goes on."""
    largest = gradient.abs().amax((1, 2)) if bias is None else torch.maximum(gradient.abs().amax((1, 2)),
                                                                             bias.abs().amax(1))
    limit = torch.full((len(gradient),), torch.inf)
    change, bias_change, _, new = polar_step(state, gradient, bias, largest, factor, 0.1, 0.5, 0.9, limit, 1)
    state.entries.update(new.entries)
    return change, bias_change


@pytest.mark.parametrize("bias", [True, False])
def test_the_first_step_is_the_dense_formula(bias):
    rows, gradient, bias_gradient = randn(50, 4) + 1, randn(1, 3, 4, seed=1), randn(1, 3, seed=2)
    state, factor = stage(rows, 3)
    change, bias_change = step(state, gradient, bias_gradient if bias else None, factor)
    mean = rows.mean(0)
    moment = (rows - mean).mT @ (rows - mean) / len(rows)
    values, vectors = torch.linalg.eigh(moment + 0.1 * moment.diagonal().mean() * torch.eye(4, dtype=DTYPE))
    root = vectors @ torch.diag(values**-0.25) @ vectors.mT
    if bias:
        right = (gradient[0] - torch.outer(bias_gradient[0], mean)) @ root
        polar = polar_factor(torch.cat([right, bias_gradient[0, :, None]], 1).unsqueeze(0))[0]
        direction, move = polar[:, :4] @ root, polar[:, 4]
    else:
        direction, move = polar_factor((gradient[0] @ root).unsqueeze(0))[0] @ root, torch.zeros(3,
                                                                                                 dtype=DTYPE)
    outputs = (rows - mean) @ direction.mT + move
    scale = outputs.square().mean().rsqrt()
    torch.testing.assert_close(change[0], direction * scale, rtol=1e-9, atol=1e-10)
    if bias:
        torch.testing.assert_close(bias_change[0], move * scale - direction @ mean * scale, rtol=1e-9,
                                   atol=1e-10)
        moved = rows @ change[0].mT + bias_change[0]
        assert moved.square().mean().item() == pytest.approx(1.0)


def test_momentum_averages_the_gradients_before_the_argmax():
    state, factor = stage(randn(50, 4), 3)
    first, second = randn(1, 3, 4, seed=1), randn(1, 3, 4, seed=2)
    step(state, first, None, factor)
    change, _ = step(state, second, None, factor)
    average = (0.09 * first + 0.1 * second) / 0.19
    alone, _ = step(stage(randn(50, 4), 3)[0], 0.1 * second + 0.9 * average, None, factor)
    torch.testing.assert_close(change / change.norm(), alone / alone.norm(), rtol=1e-9, atol=1e-10)
