"""Small stages of any shapes in one padded tensor take the steps that they would take by themselves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from optim_kinds import assert_near, controls, deviation
from torch import Tensor, nn

from pontryagin.optim import EMSA, Metric, share
from pontryagin.optim.group import StageGroup
from pontryagin.optim.packed import Pack
from pontryagin.optim.packing import Cost
from pontryagin.problem import NonFiniteError

Groups = list[StageGroup | Pack]


class Mixed(nn.Module):
    """Stages of many shapes and kinds; one is called twice, one is tall, one wide."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2),
                                    nn.GroupNorm(2, 6), nn.Flatten())
        self.wide = nn.Linear(24, 7, bias=False)
        self.again = nn.Linear(7, 7)
        self.rest = nn.Sequential(nn.LayerNorm(7), nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.wide(self.images(x)).tanh()
        return self.rest(self.again(self.again(hidden).tanh()))


def batch(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1 + torch.randn(6, 2, 6, 6, generator=generator, dtype=torch.float64)


def trained(make: Callable[[], nn.Module] = Mixed, steps: int = 25, options: dict[str, Any] | None = None,
            change: Callable[[nn.Module, EMSA, int], None] = lambda model, optimizer, step: None,
            **metric: Any) -> tuple[nn.Module, EMSA]:
    torch.manual_seed(0)
    model = make().double()
    settings = {"refresh_budget": 1e9, "moment_rows": None, **metric}
    optimizer = EMSA(model, metric=Metric(**settings), **(options or {}))
    for step in range(steps):
        change(model, optimizer, step)
        optimizer.zero_grad()
        loss = deviation(model(batch(step)), step)
        loss.backward()
        optimizer.step(loss=loss)
    return model, optimizer


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[Groups]:
    """What is packed, each time."""
    found: list[Groups] = []
    real = share.packed

    def packing(groups: Sequence[StageGroup], cost: Cost) -> Groups:
        found.append(real(groups, cost))
        return found[-1]

    monkeypatch.setattr(share, "packed", packing)
    return found


def both(packs: list[Groups], monkeypatch: pytest.MonkeyPatch, tolerance: float = 1e-8,
         **options: Any) -> None:
    """Packed and apart: the same changes."""
    together, _ = trained(**options)
    assert any(isinstance(one, Pack) for groups in packs for one in groups)
    monkeypatch.setattr(share, "packed", lambda groups, cost: list(groups))
    apart, _ = trained(**options)
    torch.manual_seed(0)
    start = controls(options.get("make", Mixed)().double())
    assert_near(controls(together), controls(apart), start, tolerance)


@pytest.mark.parametrize("exponent", [None, 0.5, 1.0, 0.3])
@pytest.mark.parametrize("damping", [0.1, 1e-4])
def test_together_is_apart(exponent: float | None, damping: float, packs: list[Groups],
                           monkeypatch: pytest.MonkeyPatch) -> None:
    both(packs, monkeypatch, exponent=exponent, damping=damping)


@pytest.mark.parametrize("rank", [2, 5])
def test_in_subspaces(rank: int, packs: list[Groups], monkeypatch: pytest.MonkeyPatch) -> None:
    both(packs, monkeypatch, metric_rank=rank)


def scaled(factor: float) -> Callable[[nn.Module, EMSA, int], None]:
    """All gradients times this."""
    def change(model: nn.Module, optimizer: EMSA, step: int) -> None:
        if not step:
            for parameter in model.parameters():
                parameter.register_hook(lambda grad: grad * factor)

    return change


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_of_any_scale(factor: float, packs: list[Groups]) -> None:
    """Exact powers of two would be the same bit by bit; these round."""
    found, _ = trained(change=scaled(factor), options={"acceptance": None})
    expected, _ = trained(options={"acceptance": None})
    torch.manual_seed(0)
    assert_near(controls(found), controls(expected), controls(Mixed().double()), 1e-8)
    assert packs


def test_settings_that_change(packs: list[Groups], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the metric, in mid-run; and a stage that rests for some steps."""
    def change(model: nn.Module, optimizer: EMSA, step: int) -> None:
        optimizer.param_groups[0]["exponent"] = (0.5, 1.0, 0.7)[step % 3]
        optimizer.param_groups[0]["damping"] = (0.1, 0.1, 0.5, 5.0)[step % 4]
        model.again.requires_grad_(step not in (9, 10, 11))  # type: ignore[union-attr]

    both(packs, monkeypatch, change=change)


def test_inputs_that_do_not_vary(packs: list[Groups], monkeypatch: pytest.MonkeyPatch) -> None:
    class Constant(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            return self.rest(self.again(0 * self.wide(self.images(x)) + 3))

    both(packs, monkeypatch, 1e-5, make=Constant)  # what their weights do is rounding


LAYERS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "linear": ((5,), lambda: nn.Linear(5, 3)),
    "linear without bias": ((5,), lambda: nn.Linear(5, 3, bias=False)),
    "one output": ((5,), lambda: nn.Linear(5, 1)),
    **{f"{kind} {n}d, {name}": ((4, *(5 - n,) * n), lambda made=made, groups=groups, outputs=outputs:
                                made(4, outputs, 2, groups=groups))
       for n, makers in ((1, (nn.Conv1d, nn.ConvTranspose1d)), (2, (nn.Conv2d, nn.ConvTranspose2d)),
                         (3, (nn.Conv3d, nn.ConvTranspose3d)))
       for kind, made in zip(("convolution", "transposed"), makers, strict=True)
       for name, groups, outputs in (("plain", 1, 3), ("grouped", 2, 6), ("depthwise", 4, 4))},
    "layer norm": ((4, 3), lambda: nn.LayerNorm(3)),
    "group norm": ((4, 3), lambda: nn.GroupNorm(2, 4)),
    "batch norm": ((4, 3), lambda: nn.BatchNorm1d(4)),
}
"""Shapes of inputs, and layers."""


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer(name: str, packs: list[Groups], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside others it moves as by itself; what has a gradient moves."""
    shape, layer = LAYERS[name]

    def make() -> nn.Module:
        inputs = torch.Size(shape).numel()
        found = nn.Sequential(nn.Flatten(), nn.Linear(72, inputs), nn.Unflatten(1, shape), layer(),
                              nn.Flatten())
        size = found[1:](torch.zeros(2, 72)).shape[1]
        return nn.Sequential(*found, nn.Linear(size, 4), nn.Tanh(), nn.Linear(4, 3, bias=False))

    both(packs, monkeypatch, 1e-7, make=make, steps=12)
    torch.manual_seed(0)
    start = make().double().state_dict()
    model, _ = trained(make, steps=12)
    for parameter_name, parameter in model.named_parameters():
        assert not torch.equal(parameter, start[parameter_name]), parameter_name


def test_what_is_packed(packs: list[Groups], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages whose zeros cost little; neither large ones, nor biases at rates of their own, nor the rows of
    grouped maps beside longer ones."""
    trained(steps=1)
    names = {frozenset(one.stage.name.removesuffix(".weight") for one in group.stages)
             for groups in packs for group in groups if isinstance(group, Pack)}
    assert {frozenset({"rest.1", "rest.3", "again", "wide"}), frozenset({"images.2"})} <= names
    monkeypatch.setattr(share, "BY_ROWS", share.BY_ROWS._replace(least=1, most=1))
    packs.clear()
    trained(steps=1)
    assert packs
    assert not any(isinstance(group, Pack) for groups in packs for group in groups)


def test_biases_at_a_rate_of_their_own(packs: list[Groups]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    optimizer = EMSA(model, [{"params": [model[0].weight, *model[2].parameters()]},
                             {"params": [model[0].bias], "lr": 0.001}])
    deviation(model(torch.ones(5, 3, dtype=torch.float64)), 0).backward()
    optimizer.step()
    packed = [one.stage.name for groups in packs for group in groups if isinstance(group, Pack)
              for one in group.stages]
    assert packed == ["2.weight"]


def test_zeros_stay_zeros(packs: list[Groups]) -> None:
    _, optimizer = trained()
    for groups in packs:
        for group in (one for one in groups if isinstance(one, Pack)):
            for rows in (group.velocity, group.change, group._gradient):
                inside = torch.zeros_like(rows)
                for part in group._shaped(inside):
                    part.fill_(1)
                assert not rows[inside == 0].any()
    state = {name: optimizer.state[parameter] for name, parameter in Mixed().named_parameters()
             for parameter in [dict(optimizer._model.named_parameters())[name]]}
    assert state["rest.3.weight"]["velocity"].shape == (1, 1, 12)
    assert state["rest.3.weight"]["bias_velocity"].shape == (1, 1)
    assert state["rest.3.weight"]["square"].shape == (1, 1)
    assert state["images.2.weight"]["velocity"].shape == (2, 3, 18)


def test_saved_states_are_whole(packs: list[Groups]) -> None:
    """Padding is in no file that matters: what is loaded goes on bit by bit."""
    model, optimizer = trained()
    twin, other = trained(steps=1)
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for one, rule in ((model, optimizer), (twin, other)):
        for step in range(25, 32):
            rule.zero_grad()
            loss = deviation(one(batch(step)), step)
            loss.backward()
            rule.step(loss=loss)
    assert torch.equal(controls(model), controls(twin))
    assert packs


@pytest.mark.parametrize("name", ["again", "rest.1", "rest.3"])
def test_a_step_that_is_not_finite_names_its_stage(name: str, packs: list[Groups]) -> None:
    """One of those in a pack, and no other; nothing has changed."""
    model, optimizer = trained()
    before = controls(model)
    optimizer.zero_grad()
    loss = deviation(model(batch(30)), 30)
    loss.backward()
    state = optimizer.state[model.get_submodule(name).weight]
    state["square"].fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=rf"^the step of {name}.weight is not"):
        optimizer.step(loss=loss)
    assert torch.equal(controls(model), before)
    assert packs


def test_a_norm_beyond_numbers_names_its_stage(packs: list[Groups]) -> None:
    """All entries of the change are finite, in float32."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2))
    optimizer = EMSA(model, acceptance=None)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(NonFiniteError) as found:  # noqa: PT012
        for step in range(60):
            x = torch.randn(5, 3, generator=generator) * (1e-15 if step < 30 else 1.0)
            optimizer.zero_grad()
            (model(x).square().mean() * (1.0 if step < 30 else 10.0**step)).backward()
            optimizer.step()
    assert "0.weight" in str(found.value)
    assert packs


def test_states_are_files(packs: list[Groups], tmp_path: Path) -> None:
    """Also for what knows nothing of views."""
    _, optimizer = trained()
    tensors = {f"{number}.{name}": value for number, entries in optimizer.state_dict()["state"].items()
               for name, value in entries.items()}
    safetensors.torch.save_file(tensors, tmp_path / "state.safetensors")
    assert all(value.is_contiguous() for value in tensors.values())
    assert packs


def test_who_leaves_takes_nothing_along(packs: list[Groups]) -> None:
    """Stages that are frozen one after the other hold no more memory than their own."""
    def change(model: nn.Module, optimizer: EMSA, step: int) -> None:
        for number, stage in enumerate((model.again, model.wide, model.rest[1])):  # type: ignore[index]
            stage.requires_grad_(step < 5 * number + 5)

    model, optimizer = trained(change=change)
    for stage in (model.again, model.wide, model.rest[1]):  # type: ignore[index]
        for name, value in optimizer.state[stage.weight].items():
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size(), name
    assert packs


def test_numpy_that_raises(packs: list[Groups]) -> None:
    """What a user has set for numpy means nothing here."""
    with np.errstate(all="raise"):
        for scale in (1e-155, 1e-200, 1e150):
            trained(steps=12, change=scaled(scale))
    assert packs


def test_packs_are_the_smaller_the_more_threads_the_rest_could_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops over a pack go on in one thread."""
    for threads, largest in ((1, 1 << 21), (2, 1 << 20), (64, 1 << 18)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert share.BY_ROWS.largest == largest
        assert share.POLAR.largest == 1 << 20
