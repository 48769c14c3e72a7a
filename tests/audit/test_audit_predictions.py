"""Predicted costs are the loss at outputs moved to first order, true costs those of the weights really
replaced."""

import copy

import pytest
import torch
from audit_builders import KINDS, built, mean_loss, output_change
from torch import Tensor, nn

from pontryagin.audit import audit
from pontryagin.audit.outputs import MOST, combined, curvature, directions
from pontryagin.audit.sets import SETS
from pontryagin.problem.admissible import TwoFourSparse

ENDS = {"mlp": {"0": 2, "3": 5, "5": 6}, "convolutional": {"0": 3, "3": 4, "4": 6, "6": 7, "9": 10}}
"""How many layers of a sequence belong to a stage with its activation."""
LINEAR = {"reused": {"tokens.weight", "places.weight", "head.weight"},
          "used twice": {"second.weight", "head.weight"}}
"""Stages that no activation follows."""


def replaced(model: nn.Module, name: str, kind: str) -> Tensor:
    """A parameter in a set, by hand."""
    weight, found = model.get_parameter(name).detach(), SETS[kind]
    transposed = isinstance(model.get_submodule(name.rpartition(".")[0]), nn.ConvTranspose2d)
    weight = weight.transpose(0, 1) if transposed else weight  # outputs, then channels, then taps
    if isinstance(found, TwoFourSparse):
        by_tap = [found.project(tap)
                  for tap in weight.flatten(2).unbind(2)] if weight.ndim > 2 else [found.project(weight)]
        moved = torch.stack(by_tap, -1).view(weight.shape)
    else:
        moved = found.project(weight.flatten(1)).view(weight.shape)
    return moved.transpose(0, 1) if transposed else moved


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_the_loss_at_linearized_outputs(kind: str) -> None:
    model, batches = built(kind)
    found = audit(model, "cross-entropy", batches, measure=False)
    model.eval()
    total = sum(len(y) for _, y in batches)
    checked = 0
    for stage in found.stages:
        for each in stage.restrictions:
            weight = replaced(model, stage.name, each.set)
            cost = first = 0.0
            for x, y in batches:
                outputs, delta = output_change(model, stage.name,
                                               weight - model.get_parameter(stage.name).detach(), x)
                slope, = torch.autograd.grad(mean_loss(at := outputs.detach().requires_grad_(), y), at)
                first += (slope * delta).sum().item() * len(y) / total
                if isinstance(model, nn.Sequential):
                    delta = after_the_activation(model, stage.name, weight, x,
                                                 ENDS[kind][stage.name.split(".")[0]])
                cost += (mean_loss(outputs + delta, y) - mean_loss(outputs, y)).item() * len(y) / total
            # some by differences
            tolerance = 1e-5 if kind in ("sequence first", "used twice", "reused") else 1e-8
            assert each.first_order == pytest.approx(first, rel=tolerance, abs=1e-9)
            if stage.name in LINEAR.get(kind, {stage.name}) and kind != "sequence first":
                assert each.predicted == pytest.approx(cost, rel=tolerance, abs=1e-9)
                checked += 1
    assert checked > 10 or kind == "sequence first"


def after_the_activation(model: nn.Sequential, name: str, weight: Tensor, x: Tensor, end: int) -> Tensor:
    """The change of the outputs, linear in the exact change of the state after `end` layers."""
    with torch.no_grad():
        before = model[:end](x.clone())
        changed = copy.deepcopy(model)
        changed.get_parameter(name).copy_(weight)
        after = changed[:end](x.clone())
    if end == len(model):
        return after - before
    return torch.func.jvp(lambda state: model[end:](state.clone()), (before,), (after - before,))[1]


def test_a_layer_in_three_places_with_its_activation() -> None:
    model, batches = built("reused")
    stage, = (stage
              for stage in audit(model, "cross-entropy", batches, sets=("ternary-rows",),
                                 measure=False).stages
              if stage.name == "step.weight")
    weight, cost = replaced(model, "step.weight", "ternary-rows"), 0.0
    for tokens, y in batches:
        states = [model.tokens(tokens) + model.places(torch.arange(4))]
        moves = []
        for _ in range(3):
            z = model.step(states[-1])
            moves.append(torch.tanh(states[-1] @ weight.T + model.step.bias) - torch.tanh(z))
            states.append(states[-1] + torch.tanh(z))
        outputs = model.head(states[-1].mean(1))
        delta = torch.stack([
            sum((torch.autograd.grad(outputs[:, k].sum(), state, retain_graph=True)[0] * move).sum((1, 2))
                for state, move in zip(states[1:], moves, strict=True))  # type: ignore[misc]
            for k in range(3)], 1)
        share = len(y) / sum(len(each) for _, each in batches)
        cost += (mean_loss(outputs + delta, y) - mean_loss(outputs, y)).item() * share
    assert stage.restrictions[0].predicted == pytest.approx(cost, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_true_costs_are_those_of_replaced_weights(kind: str) -> None:
    model, batches = built(kind)
    found = audit(model, mean_loss, batches, sets=("ternary-rows", "50%"))
    assert all(each.true is not None for stage in found.stages for each in stage.restrictions)
    plain = copy.deepcopy(model).eval()
    for stage in found.stages:
        for each in stage.restrictions:
            other = copy.deepcopy(plain)
            other.get_parameter(stage.name).data.copy_(replaced(model, stage.name, each.set))
            with torch.no_grad():
                costs = [(mean_loss(other(x), y) - mean_loss(plain(x), y)).item() * len(y)
                         for x, y in batches]
            assert each.true == pytest.approx(sum(costs) / sum(len(y) for _, y in batches), rel=1e-9,
                                              abs=1e-12)


def test_a_last_linear_layer_is_predicted_exactly() -> None:
    model, batches = built("mlp")
    last = audit(model, "cross-entropy", batches).stages[-1]
    assert last.name == "5.weight"
    for each in last.restrictions:
        assert each.predicted == pytest.approx(each.true, rel=1e-9)
        assert each.predicted_error == pytest.approx(each.true_error, rel=1e-9)


def test_little_memory_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 300), nn.ReLU(), nn.Linear(300, 200), nn.ReLU(),
                          nn.Linear(200, 3)).double()
    batches = [(torch.randn(30, 40, dtype=torch.float64), torch.randint(0, 3, (30,))) for _ in range(3)]
    large, small = (audit(model, "cross-entropy", batches, measure=False, memory=memory)
                    for memory in (2**30, 2**20))
    for one, other in zip(large.stages, small.stages, strict=True):
        assert one.gain == pytest.approx(other.gain, rel=1e-9)
        for a, b in zip(one.restrictions, other.restrictions, strict=True):
            assert a.predicted == pytest.approx(b.predicted, rel=1e-9)


def test_few_outputs_are_all_seen() -> None:
    outputs, delta = torch.randn(5, MOST), torch.randn(5, MOST)
    basis, factors = directions(outputs, torch.randn(5, MOST), True, torch.Generator())
    parts = [(v * delta).sum(1, keepdim=True) for v in basis]
    torch.testing.assert_close(combined(parts, basis, factors)[:, 0], delta)


def test_many_outputs_keep_the_slope_and_in_the_mean_the_length() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, gradient = (torch.randn(400, 50, generator=generator, dtype=torch.float64) for _ in range(2))
    delta = torch.randn(400, 50, generator=generator, dtype=torch.float64)
    basis, factors = directions(outputs, gradient, False, generator)
    products = torch.einsum("cnf,dnf->ncd", basis, basis)
    torch.testing.assert_close(products, torch.eye(MOST, dtype=torch.float64).expand(400, -1, -1))
    found = combined([(v * delta).sum(1, keepdim=True) for v in basis], basis, factors)[:, 0]
    torch.testing.assert_close((found * gradient).sum(1), (delta * gradient).sum(1))
    assert found.square().sum().item() == pytest.approx(delta.square().sum().item(), rel=0.05)


def test_with_many_classes_the_largest_are_exact() -> None:
    outputs = torch.randn(6, 100, dtype=torch.float64)
    outputs[:, :4] += 20
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    delta = torch.zeros(6, 100, dtype=torch.float64)
    delta[:, :4] = torch.randn(6, 4)
    gradient, = torch.autograd.grad(mean_loss(at := outputs.requires_grad_(), y), at)
    basis, factors = directions(outputs.detach(), gradient, True, torch.Generator())
    found = combined([(v * delta).sum(1, keepdim=True) for v in basis], basis, factors)[:, 0]
    assert mean_loss(outputs + found, y).item() == pytest.approx(mean_loss(outputs + delta, y).item(),
                                                                 rel=1e-6)


def test_curvature_is_the_gauss_newton_form() -> None:
    outputs, delta = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    y = torch.randint(0, 4, (7,))
    p = outputs.softmax(1)
    expected = ((p * delta.square()).sum(1) - (p * delta).sum(1).square()).mean().item()
    assert curvature(mean_loss, outputs, y, delta) == pytest.approx(expected, rel=1e-9)
    assert curvature(lambda out, target: out.sum(), outputs, y, delta) == 0.0
