"""The gain without bias: pairs of batches, the Gram matrices behind it, and its zero at converged
networks."""

from itertools import permutations

import pytest
import torch
from audit_builders import built, mean_loss
from torch import Tensor, nn

from pontryagin.affine import AffineMap, Change, certain_maps
from pontryagin.audit import audit
from pontryagin.audit.gap import across_batches
from pontryagin.audit.gram import Gram, GramRows


def gram_of(x: Tensor, module: nn.Module, damping: float = 0.1, batches: int = 1) -> tuple[Gram, AffineMap]:
    layer = certain_maps(module)[0]
    rows = GramRows(layer, module.weight, batches)
    for part in x.chunk(batches):
        rows.add(part)
    found = rows.gram(damping)
    assert found is not None
    return found, layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", [5, 700])  # summed whole, and by a sample of rows
def test_gram_matrix(bias: bool, inputs: int) -> None:
    x = torch.randn(8, inputs, dtype=torch.float64) * torch.rand(inputs, dtype=torch.float64) + 1
    gram, _ = gram_of(x, nn.Linear(inputs, 3, bias=bias))
    mean = x.mean(0) if bias else torch.zeros(inputs, dtype=torch.float64)
    a = (x - mean).T @ (x - mean) / 8
    damped = a + 0.1 * a.diagonal().mean() * torch.eye(inputs, dtype=torch.float64)
    right = torch.randn(1, 3, inputs, dtype=torch.float64)
    change, square = gram.argmax(Change(right, None))
    expected = torch.linalg.solve(damped, right[0].T).T
    torch.testing.assert_close(change.weight[0], expected)
    assert change.dot(Change(right, None)) == pytest.approx((right[0] * expected).sum().item())
    assert square == pytest.approx((expected @ a * expected).sum().item())
    values = torch.linalg.eigvalsh(damped)
    assert gram.condition == pytest.approx((values[-1] / values[0]).item(), rel=1e-6)
    assert gram.effective_rank == pytest.approx((a.trace() ** 2 / a.square().sum()).item())


def test_gram_of_indices_is_diagonal() -> None:
    x = torch.tensor([[0, 1, 1], [1, 3, 3]])
    gram, _ = gram_of(x, nn.Embedding(4, 2))
    right = torch.randn(1, 2, 4)
    frequencies = torch.tensor([1, 3, 0, 2]) / 6
    torch.testing.assert_close(gram.argmax(Change(right, None))[0].weight, right / (frequencies + 0.025))
    assert gram.condition == pytest.approx((0.5 + 0.025) / 0.025)


def test_constant_inputs_promise_nothing() -> None:
    gram, _ = gram_of(torch.ones(6, 4), nn.Linear(4, 2))
    assert not gram.argmax(Change(torch.randn(1, 2, 4), None))[0].weight.any()
    assert gram.condition == 1.0
    assert gram.effective_rank == 0.0


def test_direction_is_the_closed_form() -> None:
    x, u = torch.randn(50, 6, dtype=torch.float64) + 1, torch.randn(50, 3, dtype=torch.float64)
    gram, _ = gram_of(x, nn.Linear(6, 3))
    gradient = Change((u.T @ x / 50).unsqueeze(0), u.mean(0, keepdim=True))
    assert gradient.bias is not None
    way, square = gram.argmax(gradient)
    g = gradient.weight[0] - gradient.bias[0].outer(gram.mean[0])
    a = (x - x.mean(0)).T @ (x - x.mean(0)) / 50
    damped = a + 0.1 * a.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    expected = (g * torch.linalg.solve(damped, g.T).T).sum() + gradient.bias.square().sum()
    assert gradient.dot(way) == pytest.approx(expected.item())
    assert way.bias is not None
    z = x @ way.weight[0].T + way.bias[0]
    assert square == pytest.approx(z.square().sum(1).mean().item())
    undamped, _ = gram_of(x, nn.Linear(6, 3), damping=0.0)
    best, _ = undamped.argmax(gradient)
    joint = torch.cat([x, x.new_ones(50, 1)], 1)
    expected = torch.linalg.solve(joint.T @ joint / 50, joint.T @ u / 50).T
    torch.testing.assert_close(best.weight[0], expected[:, :-1])
    torch.testing.assert_close(best.bias[0], expected[:, -1])  # type: ignore[index]


def pairs_of(g: Tensor, w: Tensor) -> float:
    numbers = list(permutations(range(len(g)), 2))
    total = sum((w[a] * w[b] * (g[a] @ g[b])).item() for a, b in numbers)
    return total / sum((w[a] * w[b]).item() for a, b in numbers)


def estimate(g: Tensor, w: Tensor) -> tuple[float, float]:
    mean = w @ g
    return across_batches((mean @ mean).item(), g.square().sum(1).tolist(), (g @ mean).tolist(), w.tolist())


def test_pairs_and_jackknife_are_those_of_the_definition() -> None:
    g, w = torch.randn(6, 3, dtype=torch.float64), torch.tensor([1, 2, 1, 1, 3, 2], dtype=torch.float64) / 10
    found, error = estimate(g, w)
    assert found == pytest.approx(pairs_of(g, w))
    left_out = torch.tensor([pairs_of(torch.cat([g[:n], g[n + 1:]]), torch.cat([w[:n], w[n + 1:]]))
                             for n in range(6)])
    assert error == pytest.approx(((left_out - left_out.mean()).square().sum() * 5 / 6).sqrt().item())


def test_noise_adds_nothing() -> None:
    g, w = torch.randn(2000, 8, 5), torch.full((8,), 1 / 8, dtype=torch.float64)
    found = torch.tensor([estimate(each, w) for each in g.double()])
    naive = g.mean(1).square().sum(1).mean().item()
    assert naive == pytest.approx(5 / 8, rel=0.05)
    assert abs(found[:, 0].mean().item()) < 4 * found[:, 0].std().item() / 2000**0.5
    assert (found[:, 0].abs() < 2 * found[:, 1]).double().mean() > 0.85  # errors are honest


def test_gain_here_is_that_of_the_full_batch() -> None:
    model, batches = built("mlp")
    model.eval()
    stage = audit(model, "cross-entropy", batches, sets=(), measure=False).stages[-1]
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    features = model[:-1](x).detach()
    outputs = model[-1](features)
    u = -torch.autograd.grad(mean_loss(outputs, y), outputs)[0] * len(y)
    assert stage.costate_norm == pytest.approx(u.square().sum(1).mean().sqrt().item())
    gram, _ = gram_of(features, model[-1])
    gradient = Change((u.T @ features / len(y)).unsqueeze(0), u.mean(0, keepdim=True))
    way, _ = gram.argmax(gradient)
    assert way.bias is not None
    delta = features @ way.weight[0].T + way.bias[0]
    p = outputs.softmax(1)
    kappa = ((p * delta.square()).sum(1) - (p * delta).sum(1).square()).mean()
    rho = kappa / delta.square().sum(1).mean()
    assert stage.gain_here == pytest.approx(gradient.dot(way) / rho.item(), rel=1e-6)


def test_gain_of_a_linear_map_is_twice_the_excess_loss_and_vanishes_at_the_solution() -> None:
    torch.manual_seed(0)
    x = torch.randn(3000, 6, dtype=torch.float64)
    truth = torch.randn(2, 6, dtype=torch.float64)
    y = x @ truth.T + torch.randn(3000, 2, dtype=torch.float64)
    model = nn.Linear(6, 2).double()
    batches = list(zip(x.split(100), y.split(100), strict=True))
    gains = []
    for distance in (1.0, 0.5, 0.0):
        model.weight.data.copy_(truth + distance)
        model.bias.data.zero_()
        found = audit(model, "squared-error", batches, sets=(), measure=False)
        gains.append(found.stages[0])
        assert found.gain == pytest.approx(2 * distance**2 * 12,
                                           abs=4 * found.gain_error + 0.05 * 24 * distance**2)
    assert gains[0].gain > gains[1].gain > gains[2].gain  # type: ignore[operator]
    assert abs(gains[2].gain or 0.0) < 3 * (gains[2].gain_error or 0.0) < 0.05
    assert (gains[2].gain_here or 0.0) > 0  # noise
