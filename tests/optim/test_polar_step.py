import pytest
import torch
from torch import nn

from pontryagin.affine import maps_of
from pontryagin.affine.metric import factorize
from pontryagin.affine.polar import polar_factor
from pontryagin.optim.group import StageGroup, TrainedStage
from pontryagin.optim.polar_step import PolarStep
from pontryagin.optim.promise import Asked
from pontryagin.optim.refresh import keep
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.state import StageState
from pontryagin.trajectory.captured_stage import CapturedStage

DTYPE = torch.float64
QUINTICS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=DTYPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 6, 9), (1, 9, 6), (2, 4, 30), (1, 30, 4), (1, 5, 5), (1, 1, 7)])
def test_the_polar_factor_keeps_directions_and_evens_out_lengths(shape):
    matrix = randn(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.mT @ polar_factor(matrix) @ right.mT
    lengths = inside.diagonal(dim1=1, dim2=2)
    assert (lengths > 0.3).all()
    assert (lengths < 1.3).all()
    torch.testing.assert_close(inside, torch.diag_embed(lengths), rtol=0, atol=1e-10)


def test_lengths_end_near_one_on_the_interval_of_the_quintics():
    """Of diagonal matrices with the singular values x and y, of which x^4 + y^4 = 1."""
    x = torch.logspace(-2, 0, 2000, dtype=DTYPE).clamp_max(1)
    found = polar_factor(torch.diag_embed(torch.stack([x, (1 - x**4)**0.25], 1)))[:, 0, 0]
    assert (found - 1).abs().max() < 0.2705
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


@pytest.mark.parametrize("shape", [(3, 8, 9), (3, 4, 30), (3, 30, 4)])
@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-9, 1e9, 1e30])
def test_the_size_of_a_matrix_does_not_matter_even_beside_others(shape, size):
    """In float32, also where squares are no float32; and one of zeros stays as it is."""
    matrix = randn(*shape).float()
    matrix[1] = 0
    scaled = matrix * torch.tensor([1.0, 1.0, size])[:, None, None]
    rounded = 1e-4 if size < torch.finfo(torch.float32).tiny else 1e-5
    torch.testing.assert_close(polar_factor(scaled), polar_factor(matrix), rtol=0, atol=rounded)
    assert (polar_factor(scaled)[1] == 0).all()


class Layer:
    """A linear layer whose inputs have the moments of some rows, and its polar steps."""

    def __init__(self, rows: torch.Tensor, outputs: int, bias: bool = False) -> None:
        self.layer = nn.Linear(rows.shape[1], outputs, bias=bias, dtype=DTYPE)
        stage = AffineStage(CapturedStage("weight", self.layer, maps_of(self.layer)[0].maps[0]), 32, None)
        state, mean = StageState({}), rows.mean(0, keepdim=True)
        stage.initialize(state, bias)
        state.rows, state.mean = torch.tensor(3.0), mean
        keep([(stage, state, factorize(((rows - mean).mT @ (rows - mean) / len(rows)).unsqueeze(0)))])
        one = TrainedStage(stage, self.layer.weight, self.layer.bias, state, (0, 0))
        self.steps = PolarStep([StageGroup([one])])

    def step(self, gradient: torch.Tensor, bias: torch.Tensor | None = None
             ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The change of W and of b; the state goes on."""
        given = {self.layer.weight: gradient} | ({} if bias is None else {self.layer.bias: bias})
        for parameter, value in given.items():
            parameter.grad = value.view_as(parameter)
        settings = {"lr": 1.0, "damping": 0.1, "exponent": 0.5, "rho_decay": 0.9, "weight_decay": 0.0,
                    "steps": 0}
        largest = {id(parameter): value.abs().max().item() for parameter, value in given.items()}
        proposal = self.steps.propose([settings], largest, Asked())
        moves = self.steps.take(proposal, [settings])
        changes = [-change for one in moves for change in one.changes()]
        return changes[0], changes[1] if bias is not None else None


@pytest.mark.parametrize("bias", [True, False])
def test_the_first_step_is_the_dense_formula(bias):
    rows, gradient, bias_gradient = randn(50, 4) + 1, randn(1, 3, 4, seed=1), randn(1, 3, seed=2)
    layer = Layer(rows, 3, bias)
    change, bias_change = layer.step(gradient, bias_gradient if bias else None)
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
    torch.testing.assert_close(change, direction * scale, rtol=1e-9, atol=1e-10)
    if bias:
        torch.testing.assert_close(bias_change, move * scale - direction @ mean * scale, rtol=1e-9,
                                   atol=1e-10)
        moved = rows @ change.mT + bias_change
        assert moved.square().mean().item() == pytest.approx(1.0)


def test_momentum_averages_the_gradients_before_the_argmax():
    rows, first, second = randn(50, 4), randn(1, 3, 4, seed=1), randn(1, 3, 4, seed=2)
    layer = Layer(rows, 3)
    layer.step(first)
    change, _ = layer.step(second)
    average = (0.09 * first + 0.1 * second) / 0.19
    alone, _ = Layer(rows, 3).step(0.1 * second + 0.9 * average)
    torch.testing.assert_close(change / change.norm(), alone / alone.norm(), rtol=1e-9, atol=1e-10)
