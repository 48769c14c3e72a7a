"""What an attack found: moves between eval and train, interrupted trials, states loaded inside, wrong
registrations, names of a version before."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optim_builders import emsa, without_checked_types
from torch import Tensor, nn

from pontryagin import affine
from pontryagin.optim import EMSA, Acceptance, Averaged
from pontryagin.problem import ProblemError, stage


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))


def train(model: nn.Module, optimizer: Any, count: int) -> None:
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    for _ in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()


MAKES: dict[str, Callable[[nn.Module], Any]] = {
    "EMSA": EMSA, "Averaged": lambda model: Averaged(torch.optim.AdamW(model.parameters(), 1e-2))}
MOVES: dict[str, Callable[[nn.Module], Any]] = {
    "types": lambda model: model.double().float(), "memory": lambda model: model.share_memory()}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_controls_come_back_to_a_model_that_was_moved(make: Callable[[nn.Module], Any],
                                                      move: Callable[[nn.Module], Any]) -> None:
    model = net()
    optimizer = make(model)
    train(model, optimizer, 20)
    controls = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.eval()
    shown = [parameter.detach().clone() for parameter in model.parameters()]
    assert not torch.equal(controls[0], shown[0])
    move(model)
    optimizer.train()
    assert all(torch.equal(a, b) for a, b in zip(controls, model.parameters(), strict=True))


def test_weights_loaded_while_averages_are_shown_stay() -> None:
    model, other = net(), net()
    optimizer = EMSA(model)
    train(model, optimizer, 20)
    optimizer.eval()
    model.load_state_dict(other.state_dict())
    optimizer.train()
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_a_trial_that_is_broken_off_is_taken_back(error: type[BaseException]) -> None:
    model, calls = net(), []
    optimizer = EMSA(model, lr=30.0, acceptance=Acceptance())
    x = torch.randn(64, 5)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise error
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
        loss.backward()
        return loss

    with pytest.raises(error):
        optimizer.step(closure)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_groups_are_those_of_the_optimizer_inside_whatever_it_loads() -> None:
    model, later = net(), nn.Linear(2, 2)
    optimizer = Averaged(torch.optim.AdamW(model.parameters(), 1e-3))
    train(model, optimizer, 3)
    optimizer.optimizer.load_state_dict(copy.deepcopy(optimizer.optimizer.state_dict()))
    optimizer.param_groups[0]["lr"] = 0.5
    assert optimizer.optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.state is optimizer.optimizer.state
    optimizer.add_param_group({"params": later.parameters()})
    assert len(optimizer.optimizer.param_groups) == 2


@pytest.mark.parametrize(("old", "new"),
                         [("power", "exponent"), ("fallback", "adamw_lr"), ("moves", "flip_rate")])
def test_names_of_a_version_before_are_refused(old: str, new: str) -> None:
    model = net()
    with pytest.raises(ProblemError, match=f"'{old}', which is called '{new}' now"):
        EMSA(model, [{"params": model.parameters(), old: 1.0}])


@pytest.mark.parametrize(("key", "value", "message"), [
    ("exponent", 7.0, "exponent"), ("refresh_every", 0, "refresh_every"), ("steps", -4, "steps"),
    ("probe_stretch", 0, "probe_stretch"), ("probe_stretch", 2.0, "probe_stretch"),
    ("probe_stretch", 1024, "probe_stretch")])
def test_saved_settings_that_cannot_be_are_refused(key: str, value: float, message: str) -> None:
    model = net()
    optimizer = EMSA(model)
    train(model, optimizer, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0][key] = value
    with pytest.raises(ProblemError, match=message):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("options", [{"metric": {"damping": 1.0}}, {"acceptance": Acceptance}])
def test_settings_of_another_kind_are_refused(options: dict[str, Any]) -> None:
    with without_checked_types(), pytest.raises(ProblemError, match="expected metric=Metric"):
        EMSA(net(), **options)


class Square(nn.Module):
    """x @ kernel + offset."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.offset = nn.Parameter(torch.randn(5, 5) / 3), nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel + self.offset


WRONG: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "part of the costate": (lambda one: [affine.dense(one, "kernel", "offset", outputs=lambda u: u[:, :3])],
                            False),
    "a matrix as bias": (lambda one: [affine.turned(one, "kernel", "kernel")], True),
    "no tensor as input": (lambda one: [affine.dense(one, "kernel", inputs=lambda a, n, o=None: 3)], False),
    "no such weight": (lambda one: [affine.dense(one, "weights")], True),
    "no such bias": (lambda one: [affine.dense(one, "kernel", "bias")], True),
    "no list": (lambda one: affine.dense(one, "kernel"), True), "nothing": (lambda one: None, True)}


def warned(model: nn.Module) -> EMSA:
    """Trained, with warnings of what AdamW trains."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        optimizer = emsa(model)
        train(model, optimizer, 3)
    assert any("0.kernel" in str(one.message) for one in found)
    return optimizer


@pytest.mark.parametrize("name", WRONG)
def test_wrong_registrations_are_refused_or_fall_to_adamw(name: str) -> None:
    maps, is_refused = WRONG[name]
    kind = type("Own" + name.title().replace(" ", ""), (Square,),
                {"forward": lambda self, x: Square.forward(self, x)})
    affine.register(kind, maps)
    torch.manual_seed(0)
    model = nn.Sequential(kind(), nn.Tanh(), nn.Linear(5, 3))
    if is_refused:
        with pytest.raises(ProblemError, match=r"affine\.register"):
            EMSA(model)
        return
    optimizer = warned(model)
    assert {row.maximized for row in optimizer.stages().rows if row.name.startswith("0.kernel")} == {"AdamW"}


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"sparse": True}])
def test_tables_that_change_in_the_forward_pass_are_no_stages(options: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match="leave out max_norm and sparse"):
        stage(nn.Embedding(4, 3, **options))
