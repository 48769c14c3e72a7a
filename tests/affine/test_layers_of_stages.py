"""Every layer for which EMSA has a closed form has one in the explicit solver too: the argmax of the
augmented Hamiltonian, against its dense Hessian."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from builders import STATE_ONLY, assert_close, groups_of, normal, started
from pontryagin import affine
from pontryagin.hamiltonian import Penalties, augmented, measure
from pontryagin.maximizer import ByForm, ClosedForm
from pontryagin.problem import ControlProblem, Quadratic, RunningCost, SquaredError, stage
from pontryagin.trajectory import StageGroup

BOTH = Penalties(1.7, 0.9, everywhere=True)
LAYERS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "linear": ((3,), lambda: nn.Linear(3, 4)),
    "groups": ((4, 4, 3), lambda: nn.Conv2d(4, 6, (3, 2), groups=2, padding=1)),
    "depthwise": ((3, 7), lambda: nn.Conv1d(3, 3, 3, groups=3, bias=False)),
    "circular": ((2, 4, 3), lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")),
    "reflect": ((2, 6), lambda: nn.Conv1d(2, 2, 3, stride=2, padding=2, padding_mode="reflect")),
    "same": ((2, 4, 3), lambda: nn.Conv2d(2, 2, (3, 1), padding="same")),
    "3d": ((2, 3, 2, 3), lambda: nn.Conv3d(2, 2, 2, padding=1, stride=(2, 1, 1))),
    "transposed": ((4, 3, 2), lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, output_padding=1,
                                                         groups=2)),
    "transposed line": ((2, 4), lambda: nn.ConvTranspose1d(2, 3, 3, dilation=2, bias=False)),
    "layer norm": ((2, 5), lambda: nn.LayerNorm(5)),
    "layer norm of two axes": ((3, 2), lambda: nn.LayerNorm((3, 2))),
    "rms norm": ((5,), lambda: nn.RMSNorm(5)),
    "group norm": ((4, 3), lambda: nn.GroupNorm(2, 4)),
    "instance norm": ((3, 6), lambda: nn.InstanceNorm1d(3, affine=True)),
    "batch norm": ((3, 2, 2), lambda: nn.BatchNorm2d(3).eval()),
}


def problem(name: str, cost: RunningCost | None = None) -> ControlProblem:
    shape, make = LAYERS[name]
    first = started(stage(make().double(), running_cost=cost), seed=3)
    initial = normal(5, *shape, seed=1)
    target = normal(*first(initial, first.start).shape, seed=2)
    return ControlProblem([first], SquaredError(), initial, target)


def values(group: StageGroup, controls: Tensor, penalties: Penalties) -> Tensor:
    return torch.stack([augmented(group.stage, control, tuple(tensor[n] for tensor in group.data), penalties)
                        for n, control in enumerate(controls)])


def dense_argmax(group: StageGroup, penalties: Penalties) -> Tensor:
    control, data = group.control[0], tuple(tensor[0] for tensor in group.data)

    def value(theta: Tensor) -> Tensor:
        return augmented(group.stage, theta, data, penalties)

    hessian, gradient = torch.func.hessian(value)(control), torch.func.grad(value)(control)
    return (control - torch.linalg.pinv(hessian, hermitian=True, rtol=1e-11) @ gradient).unsqueeze(0)


@pytest.mark.parametrize("penalties", [STATE_ONLY, BOTH], ids=["state", "both"])
@pytest.mark.parametrize("cost", [None, Quadratic(0.4)], ids=["free", "quadratic"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_argmax_is_the_dense_one(name: str, cost: RunningCost | None, penalties: Penalties) -> None:
    (group,) = groups_of(problem(name, cost))
    assert isinstance(ByForm().choice(group.stage), ClosedForm)
    found, expected = ClosedForm(0.0).model(group).maximize(penalties), dense_argmax(group, penalties)
    assert_close(values(group, found, penalties), values(group, expected, penalties), 1e-9)
    assert float(values(group, found, penalties)) > float(values(group, group.control, penalties))


@pytest.mark.parametrize("name", LAYERS)
def test_measures_are_the_generic_ones(name: str) -> None:
    (group,) = groups_of(problem(name))
    new = group.control + normal(*group.control.shape, seed=9)
    for found, expected in zip(ClosedForm().model(group).measure(new), measure(group, new), strict=True):
        assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_controls_are_their_matrices(name: str) -> None:
    form = problem(name).stages[0].affine
    assert form is not None
    control = normal(3, sum(shape.numel() for _, shape in form.layout), seed=4)
    assert torch.equal(form.control(*form.matrices(control)), control)
    weights = form.matrices(control)[0]
    assert torch.equal(form.by_output(form.by_channel(weights)), weights)


@pytest.mark.parametrize("padding", [None, 2])
def test_an_embedding_of_indices(padding: int | None) -> None:
    first = started(stage(nn.Embedding(6, 3, padding_idx=padding).double()), seed=3)
    indices = torch.tensor([[0, 1, 1], [3, 2, 0], [5, 5, 5], [1, 2, 0]])
    (group,) = groups_of(ControlProblem([first], SquaredError(), indices, normal(4, 3, 3, seed=2)))
    model = ClosedForm(0.0).model(group)
    found = model.maximize(STATE_ONLY).view(6, 3)
    expected = dense_argmax(group, STATE_ONLY).view(6, 3)
    seen = [n for n in (0, 1, 2, 3, 5) if n != padding]
    assert_close(found[seen], expected[seen], 1e-10)
    assert torch.equal(found[4], group.control.view(6, 3)[4])  # never looked up
    for one, other in zip(model.measure(found.view(1, -1)), measure(group, found.view(1, -1)), strict=True):
        assert_close(one, other, 1e-10)


def test_equal_layers_are_one_group() -> None:
    stages = [started(stage(nn.LayerNorm(5).double()), seed=n) for n in range(3)]
    whole = ControlProblem(stages, SquaredError(), normal(4, 5), normal(4, 5, seed=1))
    (group,) = groups_of(whole)
    assert len(group.indices) == 3
    together = ClosedForm(0.0).model(group).maximize(BOTH)
    alone = torch.cat([ClosedForm(0.0).model(one).maximize(BOTH) for one in group.singles()])
    assert_close(together, alone, 1e-9)


class Scaled(nn.Linear):
    """A forward of its own: not known."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Hooked(nn.Linear):
    """Known by its class, but for what hangs on it."""


@pytest.mark.parametrize("module", [Scaled(3, 3), nn.Sequential(nn.Linear(3, 3)),
                                    nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))])
def test_what_is_not_known_has_none(module: nn.Module) -> None:
    assert stage(module).affine is None


def test_hooks_are_not_seen_through() -> None:
    module = Hooked(3, 3)
    assert stage(module).affine is not None
    module.register_forward_hook(lambda module, arguments, output: output + 1)
    assert stage(module).affine is None


class TwoMatrices(nn.Module):
    """z = V (W x): registered below by its user as one map of the inner matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel.mT + self.offset


def test_a_layer_of_a_users_own_by_one_call() -> None:
    assert stage(TwoMatrices()).affine is None
    affine.register(TwoMatrices, lambda module: [affine.dense(module, "kernel", "offset")])
    first = stage(TwoMatrices())
    (group,) = groups_of(ControlProblem([first], SquaredError(), normal(5, 3), normal(5, 4, seed=1)))
    assert_close(ClosedForm(0.0).model(group).maximize(BOTH), dense_argmax(group, BOTH), 1e-9)
