"""Hessian-vector products, extreme eigenvalues and the density against dense matrices."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from builders import assert_close, mixed_problem, normal, objective, split_problem
from pontryagin.diagnostics import extreme_eigenvalues, module_hessian, problem_hessian, spectral_density
from pontryagin.diagnostics.hessian import HessianOperator
from pontryagin.diagnostics.spectrum import lanczos
from pontryagin.papers.saddle.experiment import hessian_at
from pontryagin.papers.sine.task import SineTask
from pontryagin.problem import ControlProblem, NonFiniteError, ProblemError


def dense_of(problem: ControlProblem) -> Tensor:
    """By automatic differentiation of J, written out in the tests."""
    theta = problem.initial_controls()
    sizes = [control.numel() for control in theta]

    def cost(flat: Tensor) -> Tensor:
        return objective(problem, flat.split(sizes))

    return torch.func.hessian(cost)(torch.cat(theta))


def of_matrix(matrix: Tensor) -> HessianOperator:
    return HessianOperator(len(matrix), matrix.dtype, matrix.device, 0.0, lambda vector: matrix @ vector)


def symmetric(size: int, seed: int = 0) -> Tensor:
    half = normal(size, size, seed=seed)
    return half + half.mT


def test_of_a_control_problem() -> None:
    problem = split_problem()
    hessian, vector = problem_hessian(problem), normal(36, seed=5)
    assert_close(hessian.dense(), dense_of(problem), 1e-10)
    assert_close(hessian(vector), dense_of(problem) @ vector, 1e-10)


def test_of_mixed_stages_against_differences_of_gradients() -> None:
    """Running costs and stages without control too; torch's vectorized Hessian is wrong for LayerNorm, so not
    that one."""
    problem = mixed_problem([], ["tanh", "norm"], seed=2)
    theta = problem.initial_controls()
    sizes = [control.numel() for control in theta]
    flat = torch.cat(theta)
    gradient = torch.func.grad(lambda flat: objective(problem, flat.split(sizes)))
    vector, step = normal(len(flat), seed=5), 1e-5
    differences = (gradient(flat + step * vector) - gradient(flat - step * vector)) / (2 * step)
    hessian = problem_hessian(problem)
    assert_close(hessian(vector), differences, 1e-7)
    assert hessian.gradient_norm == pytest.approx(float(gradient(flat).norm()), rel=1e-9)


def test_of_a_module_over_uneven_batches_without_touching_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5),
                          nn.Linear(4, 2)).double()
    model[0].bias.requires_grad_(False)
    x, y = normal(7, 3, seed=1), torch.tensor([0, 1, 0, 1, 1, 0, 1])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hessian = module_hessian(model, "cross-entropy", [(x[:5], y[:5]), (x[5:], y[5:])])
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert hessian.size == sum(value.numel() for value in trained.values())

    def cost(flat: Tensor) -> Tensor:
        pieces = flat.split([value.numel() for value in trained.values()])
        own = {name: piece.view_as(value)
               for (name, value), piece in zip(trained.items(), pieces, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model.eval(), own, (x,)), y)

    expected = torch.func.hessian(cost)(torch.cat([value.detach().flatten() for value in trained.values()]))
    model.train()
    assert_close(hessian.dense(), expected, 1e-10)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())


def test_the_saddle_of_the_sine_against_its_dense_hessian() -> None:
    """600 parameters at zero controls: the ends of Lanczos are those of the matrix, by the plain loop over
    layers."""
    task = SineTask("b", 0)
    theta = torch.zeros(20, 30, dtype=torch.float64)
    hessian = hessian_at(task, theta)
    assert hessian.size == 600
    flat = theta.flatten().requires_grad_()
    gradient, = torch.autograd.grad(task.loss(flat.view(20, 30)), flat, create_graph=True)
    dense = torch.stack([torch.autograd.grad(gradient, flat, unit, retain_graph=True)[0]
                         for unit in torch.eye(600, dtype=torch.float64)])
    values = torch.linalg.eigvalsh(dense)
    found = extreme_eigenvalues(hessian, 4)
    assert_close(found.lowest[:1], values[:1], 1e-6)
    assert_close(found.highest[-1:], values[-1:], 1e-6)
    # multiple eigenvalues: not every copy need be found
    for value in torch.cat([found.lowest, found.highest]):
        assert float((values - value).abs().min()) < 1e-4 * float(values[-1])
    assert hessian.gradient_norm == pytest.approx(float(gradient.detach().norm()), rel=1e-9)


def test_extreme_eigenvalues_of_small_and_of_larger_matrices() -> None:
    for size, count in ((6, 6), (60, 3)):
        matrix = symmetric(size)
        values = torch.linalg.eigvalsh(matrix)
        found = extreme_eigenvalues(of_matrix(matrix), count)
        assert_close(found.lowest, values[:count], 1e-6)
        assert_close(found.highest, values[-count:], 1e-6)
        assert found.negative_curvature == pytest.approx(-float(values[0]) / float(values.abs().max()),
                                                         rel=1e-6)
    assert extreme_eigenvalues(of_matrix(torch.eye(4, dtype=torch.float64)), 1).negative_curvature == 0


def test_lanczos_finds_all_eigenvalues_of_a_small_matrix() -> None:
    matrix = symmetric(8)
    diagonal, beside = lanczos(of_matrix(matrix), normal(8, seed=1), 8)
    found = torch.linalg.eigvalsh(torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1))
    assert_close(found, torch.linalg.eigvalsh(matrix), 1e-10)


def test_lanczos_stops_where_the_krylov_space_ends() -> None:
    diagonal, beside = lanczos(of_matrix(2 * torch.eye(5, dtype=torch.float64)), normal(5), 4)
    assert diagonal.tolist() == pytest.approx([2.0])
    assert len(beside) == 0


def test_density_has_the_moments_of_the_spectrum() -> None:
    """Integral 1, and mean and mean square within what 40 probes allow."""
    values = torch.cat([torch.linspace(-1, 1, 180, dtype=torch.float64),
                        torch.full((20,), 6.0, dtype=torch.float64)])
    rotation = torch.linalg.qr(normal(200, 200))[0]
    found = spectral_density(of_matrix(rotation @ torch.diag(values) @ rotation.mT), probes=40, steps=60)
    step = float(found.grid[1] - found.grid[0])
    assert step * float(found.density.sum()) == pytest.approx(1.0, abs=1e-3)
    assert step * float((found.density * found.grid).sum()) == pytest.approx(float(values.mean()), abs=0.15)
    assert step * float((found.density
                         * found.grid.square()).sum()) == pytest.approx(float(values.square().mean()),
                                                                        rel=0.2)
    outlier = (found.grid > 5).double() @ found.density * step
    assert float(outlier) == pytest.approx(0.1, abs=0.03)


def test_density_of_a_constant_spectrum_and_of_linear_losses() -> None:
    found = spectral_density(of_matrix(torch.zeros(4, 4, dtype=torch.float64)), probes=2, steps=3)
    assert float(found.grid[found.density.argmax()]) == pytest.approx(0.0, abs=found.width)
    model = nn.Linear(2, 1).double()
    linear = module_hessian(model, lambda outputs, targets: outputs.mean(), [(normal(3, 2), normal(3, 1))])
    assert not linear(normal(3)).any()


def test_refused_requests() -> None:
    matrix = of_matrix(symmetric(50))
    with pytest.raises(ProblemError, match=r"a count in \[1, 50\], found 0"):
        extreme_eigenvalues(matrix, 0)
    with pytest.raises(ProblemError, match="converged in 1 restarts"):
        extreme_eigenvalues(of_matrix(symmetric(400)), 5, iterations=1, tolerance=1e-14)
    with pytest.raises(ProblemError, match="probes >= 1"):
        spectral_density(matrix, probes=0)
    with pytest.raises(ProblemError, match="0 batches"):
        module_hessian(nn.Linear(2, 1), "squared-error", [])
    with pytest.raises(NonFiniteError, match="Hessian-vector product"):
        of_matrix(torch.full((3, 3), np.inf))(torch.ones(3))
