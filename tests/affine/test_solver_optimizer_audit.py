"""One argmax, three users: the closed form of the explicit solver, EMSA and the audit find the same (dW, db),
the same change of the outputs and the same gain, of one layer in float64.

G, g are sums over the positions of a sample and means over samples, for all three. The optimizer and the
audit price the mean of |change of z|^2 over all rows, the solver its sum over the positions of a sample: so
its rho_state is 1 / positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from builders import assert_close, groups_of, normal
from pontryagin.affine import AffineMap, Change, Diagonal, Factor, argmax, certain_maps
from pontryagin.audit.gap import stage_gradients
from pontryagin.audit.network import under_audit
from pontryagin.diagnostics.batches import gathered
from pontryagin.diagnostics.loss import MeanLoss
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import ClosedForm
from pontryagin.optim import EMSA, Metric
from pontryagin.optim.state import StageState, States
from pontryagin.problem import ControlProblem, SquaredError, stage

TOLERANCE = 1e-9
LAYERS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "linear": ((3,), lambda: nn.Linear(3, 4)),
    "linear without bias": ((3,), lambda: nn.Linear(3, 4, bias=False)),
    "linear at several positions": ((2, 3), lambda: nn.Linear(3, 4)),
    "linear with more inputs than rows": ((40,), lambda: nn.Linear(40, 2)),
    "groups": ((4, 4, 3), lambda: nn.Conv2d(4, 6, (3, 2), groups=2, padding=1, stride=(2, 1))),
    "groups without bias": ((4, 4, 3), lambda: nn.Conv2d(4, 6, (3, 2), groups=2, bias=False)),
    "depthwise": ((3, 7), lambda: nn.Conv1d(3, 3, 3, groups=3, padding=2, padding_mode="circular")),
    "layer norm": ((2, 5), lambda: nn.LayerNorm(5)),
    "layer norm of two axes": ((3, 2), lambda: nn.LayerNorm((3, 2))),
    "rms norm": ((5,), lambda: nn.RMSNorm(5)),
    "group norm": ((4, 3), lambda: nn.GroupNorm(2, 4)),
    "embedding": ((3,), lambda: nn.Embedding(6, 2)),
}
OVERLAPPING: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "transposed": ((4, 3, 2), lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, output_padding=1,
                                                         groups=2)),
    "transposed without bias": ((2, 4), lambda: nn.ConvTranspose1d(2, 3, 3, dilation=2, bias=False)),
}


@dataclass
class Found:
    """Of one map. square: mean |change of z|^2 over rows; gain: <G, dW> + <g, db>."""

    change: Change
    square: float
    gain: float


@dataclass
class Case:
    """A layer with random weights, and samples."""

    module: nn.Module
    inputs: Tensor
    targets: Tensor

    def loss(self) -> Tensor:
        return SquaredError()(self.module(self.inputs), self.targets).mean()


def case_of(layer: tuple[tuple[int, ...], Callable[[], nn.Module]], samples: int = 9) -> Case:
    shape, make = layer
    module = make().double()
    for number, parameter in enumerate(module.parameters()):
        parameter.data = normal(*parameter.shape, seed=number, scale=0.5)
    inputs = normal(samples, *shape, seed=10) + 0.7
    if isinstance(module, nn.Embedding):
        inputs = torch.randint(5, (samples, *shape), generator=torch.Generator().manual_seed(1))  # no 5
    return Case(module, inputs, normal(*module(inputs).shape, seed=11))


def by_optimizer(case: Case, damping: float) -> list[Found]:
    """From the moments that it keeps; its step, of length 0, changes nothing."""
    optimizer = EMSA(case.module, lr=0.0, averaging=None, metric=Metric(moment_rows=None, metric_rank=64))
    case.loss().backward()
    optimizer.step()
    found = [_kept(case.module, one, optimizer.state, damping) for one in certain_maps(case.module)]
    case.module.zero_grad()
    return found


def _kept(module: nn.Module, one: AffineMap, states: States, damping: float) -> Found:
    state = StageState(states[module.get_parameter(one.weight)])
    metric = Diagonal(state.moment) if one.one_hot else Factor(state.basis, state.values, state.tail)
    weight = one.matrix(-gradient_of(module, one.weight))
    bias = None if one.bias is None else -gradient_of(module, one.bias).view(weight.shape[:2])
    *change, square = argmax(weight.clone(), bias, state.mean, metric, damping, 1.0)
    return Found(Change(*change), square.sum().item(), Change(weight, bias).dot(Change(*change)))


def gradient_of(module: nn.Module, name: str) -> Tensor:
    gradient = module.get_parameter(name).grad
    assert gradient is not None
    return gradient


def by_audit(case: Case, damping: float) -> list[Found]:
    loss = MeanLoss(lambda outputs, targets: SquaredError()(outputs, targets))
    batches = gathered([(case.inputs, case.targets)], loss.counted)
    with under_audit(case.module) as network:
        found, _ = stage_gradients(network, loss, batches, damping, lambda: None)
    return [Found(one.direction, one.square, one.total) for _, one in sorted(found.items())]


def by_solver(case: Case, damping: float) -> Found:
    one = stage(case.module)
    assert one.affine is not None
    control = torch.cat([case.module.get_parameter(name).detach().flatten() for name, _ in one.affine.layout])
    group, = groups_of(ControlProblem([one], SquaredError(), case.inputs, case.targets), (control,))
    model = ClosedForm(damping).model(group)
    positions = model.moments.positions
    new = model.maximize(Penalties(1 / positions, 0.0))
    weight, bias = model.form.matrices(new - group.control)
    measures = model.measure(new)
    return Found(Change(weight, bias if model.form.bias else None), measures.state_error.item() / positions,
                 measures.gain.item())


def assert_same(found: Found, expected: Found) -> None:
    assert_close(found.change.weight, expected.change.weight, TOLERANCE)
    assert (found.change.bias is None) == (expected.change.bias is None)
    if found.change.bias is not None and expected.change.bias is not None:
        assert_close(found.change.bias, expected.change.bias, TOLERANCE)
    assert found.square == pytest.approx(expected.square, rel=TOLERANCE)
    assert found.gain == pytest.approx(expected.gain, rel=TOLERANCE)


@pytest.mark.parametrize("damping", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize("name", LAYERS)
def test_all_three_are_one(name: str, damping: float) -> None:
    case = case_of(LAYERS[name])
    (optimizer,), (audit,) = by_optimizer(case, damping), by_audit(case, damping)
    solver = by_solver(case, damping)
    assert_same(optimizer, solver)
    assert_same(audit, solver)
    assert solver.gain > 0


def test_an_index_that_is_no_control() -> None:
    """Without damping: whether it counts in the mean frequency is the one thing that they do not share."""
    case = case_of(((3,), lambda: nn.Embedding(6, 2, padding_idx=2)))
    (optimizer,), (audit,), solver = by_optimizer(case, 0.0), by_audit(case, 0.0), by_solver(case, 0.0)
    assert_same(optimizer, solver)
    assert_same(audit, solver)
    assert not solver.change.weight[..., 2].any()


@pytest.mark.parametrize("damping", [1e-3, 0.1])
@pytest.mark.parametrize("name", OVERLAPPING)
def test_overlapping_outputs(name: str, damping: float) -> None:
    """W and b are maps of their own, which the solver takes for one of all patches."""
    case = case_of(OVERLAPPING[name])
    found = by_optimizer(case, damping)
    assert len(found) == len(list(case.module.parameters()))
    for optimizer, audit in zip(found, by_audit(case, damping), strict=True):
        assert_same(optimizer, audit)


@pytest.mark.parametrize("name", LAYERS)
def test_the_change_of_outputs_is_what_they_say(name: str) -> None:
    """The layer itself, moved: mean over rows of |change of z|^2; and the gain is the slope of the loss."""
    case = case_of(LAYERS[name])
    found, one = by_solver(case, 0.1), certain_maps(case.module)[0]
    before, slope = case.module(case.inputs), 1e-6
    loss = case.loss().item()
    move(case.module, one, found.change, 1.0)
    assert one.outputs is not None
    change = one.outputs(case.module(case.inputs) - before)
    assert change.square().sum((0, 2)).mean().item() == pytest.approx(found.square, rel=TOLERANCE)
    move(case.module, one, found.change, slope - 1.0)
    assert (loss - case.loss().item()) / slope == pytest.approx(found.gain, rel=1e-4)


@torch.no_grad()
def move(module: nn.Module, one: AffineMap, change: Change, factor: float) -> None:
    module.get_parameter(one.weight).add_(one.shaped(change.weight), alpha=factor)
    if one.bias is not None and change.bias is not None:
        bias = module.get_parameter(one.bias)
        bias.add_(change.bias.view_as(bias), alpha=factor)
