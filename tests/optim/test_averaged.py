"""`Averaged`: the averages of EMSA for any torch optimizer, as its users' loops meet it."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optim_builders import without_checked_types
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import SGD, AdamW, Optimizer, lr_scheduler

from pontryagin.optim import Averaged
from pontryagin.problem import ProblemError

Make = Callable[[Any], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda parameters: SGD(parameters, 0.1, momentum=0.9),
    "adamw": lambda parameters: AdamW(parameters, 0.01),
    "foreach": lambda parameters: AdamW(parameters, 0.01, foreach=True),
    "rprop": lambda parameters: torch.optim.Rprop(parameters),
}


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(dtype)


def loss_of(model: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    x, y = (torch.randn(8, size, generator=generator).to(next(model.parameters()).dtype) for size in (4, 2))
    return (model(x) - y).square().mean()


def train(model: nn.Module, optimizer: Optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def controls(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def are_equal(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Bit by bit."""
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def averages(model: nn.Module, optimizer: Averaged) -> list[Tensor]:
    """As they are shown, and hidden again."""
    optimizer.eval()
    shown = controls(model)
    optimizer.train()
    return shown


# --- what the averages are


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("eta", [0.0, 3.0, 8.0])
def test_the_formula_in_a_plain_loop(name: str, eta: float) -> None:
    """a_k = (1 - c_k) a_{k-1} + c_k theta_k with c_k = (eta + 1) / (k + eta), beside the optimizer alone."""
    model, plain = network(), network()
    optimizer = Averaged(OPTIMIZERS[name](model.parameters()), eta)
    alone, expected = OPTIMIZERS[name](plain.parameters()), [torch.zeros_like(one) for one in controls(plain)]
    for step in range(1, 13):
        train(model, optimizer, 1, step)
        train(plain, alone, 1, step)
        assert are_equal(controls(model), controls(plain))
        share = (eta + 1) / (step + eta)
        for value, new in zip(expected, controls(plain), strict=True):
            value.copy_((1 - share) * value + share * new)
        for found, value in zip(averages(model, optimizer), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-13, atol=1e-14)


@given(st.integers(1, 40))
def test_with_eta_zero_it_is_the_mean(steps: int) -> None:
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer, seen = Averaged(SGD([parameter], 1.0), 0.0), []
    for step in range(steps):
        parameter.grad = torch.randn(3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        optimizer.step()
        seen.append(parameter.detach().clone())
    optimizer.eval()
    torch.testing.assert_close(parameter.detach(), torch.stack(seen).mean(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_averages_in_single(dtype: torch.dtype) -> None:
    """Steps of a hundredth of a rounding of bfloat16 add up."""
    parameter = nn.Parameter(torch.ones(4, dtype=dtype))
    optimizer = Averaged(SGD([parameter], 0.0), 100.0)
    expected = torch.ones(4)
    for step in range(1, 200):
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        with torch.no_grad():
            value, = averages_of(optimizer)
        expected = expected.lerp(parameter.detach().float(), 101 / (step + 100))
        assert value.dtype == torch.float32
        assert torch.equal(value, expected)
    optimizer.eval()
    assert parameter.dtype == dtype


def averages_of(optimizer: Averaged) -> list[Tensor]:
    return [entries["averaged_mean_control"] for entries in optimizer.state_dict()["state"].values()]


def test_half_precision_averages_are_those_of_the_wide_values() -> None:
    model = network(torch.bfloat16)
    optimizer, expected = Averaged(SGD(model.parameters(), 0.05), 2.0), [torch.zeros(())] * 4
    for step in range(1, 20):
        train(model, optimizer, 1, step)
        expected = [value.float().expand_as(old).lerp(old.float(), 3 / (step + 2))
                    for value, old in zip(expected, controls(model), strict=True)]
    for found, value in zip(averages_of(optimizer), expected, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, value)
    assert are_equal(averages(model, optimizer), [value.bfloat16() for value in averages_of(optimizer)])


def test_complex_parameters_and_frozen_ones() -> None:
    parameters = [nn.Parameter(torch.ones(3, dtype=torch.complex128)), nn.Parameter(torch.ones(2), False)]
    optimizer, total = Averaged(SGD(parameters, 1.0), 0.0), torch.zeros(3, dtype=torch.complex128)
    for step in range(1, 6):
        parameters[0].grad = torch.full((3,), step * 1j, dtype=torch.complex128)
        optimizer.step()
        total += parameters[0].detach()
    optimizer.eval()
    torch.testing.assert_close(parameters[0].detach(), total / 5)
    assert torch.equal(parameters[1], torch.ones(2))


# --- showing and hiding


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_showing_is_idempotent_and_training_goes_on_as_without(name: str, dtype: torch.dtype) -> None:
    model, plain = network(dtype), network(dtype)
    optimizer, alone = Averaged(OPTIMIZERS[name](model.parameters())), OPTIMIZERS[name](plain.parameters())
    optimizer.eval()
    optimizer.train()
    for step in range(8):
        train(model, optimizer, 1, step)
        train(plain, alone, 1, step)
        before = controls(model)
        optimizer.eval()
        shown = controls(model)
        optimizer.eval()
        assert are_equal(controls(model), shown)
        assert step == 0 or not are_equal(shown, before)
        optimizer.train()
        assert are_equal(controls(model), before)
        optimizer.train()
        assert are_equal(controls(model), controls(plain))


def test_no_step_while_shown() -> None:
    model = network()
    optimizer, calls = Averaged(AdamW(model.parameters())), []
    train(model, optimizer, 2)
    optimizer.eval()
    before, state = controls(model), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ProblemError, match=r"optimizer\.train\(\) before the next step"):
        optimizer.step(lambda: calls.append(1))
    assert not calls
    assert are_equal(controls(model), before)
    assert int(state["state"][0]["averaged_steps"]) == optimizer.steps == 2
    optimizer.train()
    train(model, optimizer, 1)


def test_weights_that_are_loaded_begin_new_averages() -> None:
    model, other = network(), network()
    train(other, SGD(other.parameters(), 0.3), 5)
    optimizer = Averaged(SGD(model.parameters(), 0.0))
    train(model, optimizer, 5)
    model.load_state_dict(other.state_dict())
    train(model, optimizer, 3)  # with a rate of 0, so that the average stays where it begins
    assert are_equal(averages(model, optimizer), controls(other))


def test_a_new_average_begins_at_what_was_loaded() -> None:
    """a_6 = (1 - c_6) W + c_6 theta_6."""
    model, other = network(), network()
    train(other, SGD(other.parameters(), 0.3), 5)
    optimizer = Averaged(SGD(model.parameters(), 0.1), 8.0)
    train(model, optimizer, 5)
    model.load_state_dict(other.state_dict())
    train(model, optimizer, 1)
    expected = [start.lerp(end, 9 / 14) for start, end in zip(controls(other), controls(model), strict=True)]
    assert are_equal(averages(model, optimizer), expected)


def test_weights_that_are_loaded_while_shown_stay() -> None:
    model, other = network(), network()
    train(other, SGD(other.parameters(), 0.3), 5)
    optimizer = Averaged(SGD(model.parameters(), 0.1))
    train(model, optimizer, 5)
    optimizer.eval()
    model.load_state_dict(other.state_dict())
    optimizer.train()
    assert are_equal(controls(model), controls(other))


# --- loops


@pytest.mark.parametrize("make", [lambda one: lr_scheduler.CosineAnnealingLR(one, 6),
                                  lambda one: lr_scheduler.OneCycleLR(one, 0.5, total_steps=12),
                                  lambda one: lr_scheduler.LambdaLR(one, lambda step: 0.9**step)])
def test_a_scheduler_sees_an_optimizer(make: Callable[[Optimizer], lr_scheduler.LRScheduler]) -> None:
    model, plain = network(), network()
    optimizer, alone = (Averaged(SGD(model.parameters(), 0.2, momentum=0.5)),
                        SGD(plain.parameters(), 0.2, momentum=0.5))
    schedule, other = make(optimizer), make(alone)
    for step in range(10):
        train(model, optimizer, 1, step)
        train(plain, alone, 1, step)
        schedule.step()
        other.step()
        assert schedule.get_last_lr() == other.get_last_lr() == [optimizer.optimizer.param_groups[0]["lr"]]
        assert are_equal(controls(model), controls(plain))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == schedule.get_last_lr()[0]
    assert optimizer.param_groups is optimizer.optimizer.param_groups


def test_a_plateau() -> None:
    model = network()
    optimizer = Averaged(SGD(model.parameters(), 0.2))
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(3):
        train(model, optimizer, 1)
        schedule.step(1.0)
    assert optimizer.optimizer.param_groups[0]["lr"] < 0.2


def test_automatic_mixed_precision() -> None:
    model, plain = network(torch.float32), network(torch.float32)
    optimizer, alone = Averaged(AdamW(model.parameters(), 0.01)), AdamW(plain.parameters(), 0.01)
    for step in range(6):
        for one, each in ((model, optimizer), (plain, alone)):
            each.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(one, step)
            loss.backward()
            each.step()
        assert are_equal(controls(model), controls(plain))
        optimizer.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            loss_of(model, step)
        optimizer.train()


def test_a_scaler_skips_steps_that_do_not_count() -> None:
    model = network(torch.float32)
    optimizer, scaler = Averaged(SGD(model.parameters(), 0.1)), torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(4):
        optimizer.zero_grad()
        loss = loss_of(model, step) * (float("inf") if step == 1 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.steps == 3
    assert all(one.isfinite().all() for one in averages(model, optimizer))


def test_closures() -> None:
    model, plain = network(), network()

    def made(one: nn.Module, optimizer: Optimizer) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(one, 0)
            loss.backward()
            return loss
        return closure

    optimizer, alone = Averaged(torch.optim.LBFGS(model.parameters())), torch.optim.LBFGS(plain.parameters())
    for step in range(4):
        found = optimizer.step(made(model, optimizer))
        assert torch.equal(found, alone.step(made(plain, alone)))
        assert are_equal(controls(model), controls(plain))
        assert optimizer.steps == step + 1


def test_hooks_stay_the_optimizers() -> None:
    model = network()
    inner, seen = SGD(model.parameters(), 0.1), []
    inner.register_step_post_hook(lambda *_: seen.append("inner"))
    optimizer = Averaged(inner)
    optimizer.register_step_post_hook(lambda *_: seen.append("outer"))
    train(model, optimizer, 1)
    assert seen == ["inner", "outer"]


@pytest.mark.parametrize("inside", [True, False])
def test_groups_that_come_later(inside: bool) -> None:
    model = network()
    groups = [{"params": list(model[0].parameters()), "lr": 0.3}]
    inner = SGD(groups, 0.1)
    before = inner.param_groups[0]["params"]
    optimizer = Averaged(inner)
    assert inner.param_groups[0]["params"] is before
    train(model, optimizer, 3)
    (inner if inside else optimizer).add_param_group({"params": model[2].parameters(), "lr": 0.2})
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.2]
    train(model, optimizer, 1)
    now = controls(model)
    shown = averages(model, optimizer)
    assert are_equal(shown[2:], now[2:])
    assert not are_equal(shown[:2], now[:2])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": model[2].parameters()})


def test_named_parameters() -> None:
    model = network()
    optimizer = Averaged(SGD(model.named_parameters(), 0.1))
    train(model, optimizer, 2)
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in model.named_parameters()]


# --- states


def saved(model: nn.Module, optimizer: Averaged) -> dict[str, Any]:
    """Through a file that is read as weights alone."""
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("is_shown", [True, False])
@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize("was_shown", [True, False])
def test_a_run_goes_on_from_its_state(name: str, is_shown: bool, model_first: bool, was_shown: bool) -> None:
    straight, first, second = network(), network(), network()
    reference, optimizer = (Averaged(OPTIMIZERS[name](one.parameters())) for one in (straight, first))
    train(straight, reference, 9)
    train(first, optimizer, 5)
    if is_shown:
        optimizer.eval()
    file = saved(first, optimizer)
    resumed = Averaged(OPTIMIZERS[name](second.parameters()))
    train(second, resumed, 2)
    if was_shown:
        resumed.eval()
    for what in ("model", "optimizer") if model_first else ("optimizer", "model"):
        (second if what == "model" else resumed).load_state_dict(file[what])
    assert are_equal(controls(second), controls(first))
    assert (resumed.steps, resumed.is_shown) == (5, is_shown)
    resumed.train()
    train(second, resumed, 4, 5)
    assert are_equal(controls(second), controls(straight))
    assert are_equal(averages(second, resumed), averages(straight, reference))


class Wrapper(SGD):
    """Its state is a dictionary of its own."""

    def state_dict(self) -> dict[str, Any]:
        return {"inside": super().state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["inside"])


def test_a_state_of_another_form() -> None:
    straight, first, second = network(), network(), network()
    reference, optimizer, resumed = (Averaged(Wrapper(one.parameters(), 0.1, momentum=0.9))
                                     for one in (straight, first, second))
    train(straight, reference, 9)
    train(first, optimizer, 5)
    file = saved(first, optimizer)
    second.load_state_dict(file["model"])
    resumed.load_state_dict(file["optimizer"])
    train(second, resumed, 4, 5)
    assert are_equal(averages(second, resumed), averages(straight, reference))


@pytest.mark.parametrize("make", [lambda parameters: SGD(parameters, 0.1), OPTIMIZERS["adamw"]])
@pytest.mark.parametrize("has_gradients", [True, False])
def test_states_by_names(make: Make, has_gradients: bool) -> None:
    """torch.distributed.checkpoint makes a step of an optimizer that has no state: the averages are one."""
    straight, first, second = network(), network(), network()
    reference, optimizer, resumed = (Averaged(make(one.parameters())) for one in (straight, first, second))
    train(straight, reference, 9)
    train(first, optimizer, 5)
    if not has_gradients:
        optimizer.zero_grad()
    state = copy.deepcopy(get_optimizer_state_dict(first, optimizer))
    assert "averaged_mean_control" in state["state"]["0.weight"]
    second.load_state_dict(first.state_dict())
    set_optimizer_state_dict(second, resumed, state)
    train(first, optimizer, 4, 5)
    train(second, resumed, 4, 5)
    expected = averages(straight, reference)
    assert are_equal(averages(first, optimizer), expected)
    assert are_equal(averages(second, resumed), expected)


def test_loading_a_state_into_a_model_that_shows_its_averages() -> None:
    """Without the model's own weights: the controls come back, and are not lost."""
    model = network()
    optimizer = Averaged(SGD(model.parameters(), 0.1))
    train(model, optimizer, 4)
    state, before = copy.deepcopy(optimizer.state_dict()), controls(model)
    optimizer.eval()
    optimizer.load_state_dict(state)
    assert are_equal(controls(model), before)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@pytest.mark.parametrize("is_shown", [True, False])
def test_copies_have_parameters_of_their_own(way: str, is_shown: bool) -> None:
    straight, model = network(), network()
    reference, optimizer = (Averaged(AdamW(one.parameters(), 0.01), 3.0) for one in (straight, model))
    train(straight, reference, 7)
    train(model, optimizer, 4)
    schedule = lr_scheduler.ConstantLR(optimizer, 1.0)  # it wraps optimizer.step
    if is_shown:
        optimizer.eval()
    before = controls(model)
    other, copied = (copy.deepcopy((model, optimizer)) if way == "deepcopy" else
                     pickle.loads(pickle.dumps((model, optimizer))))
    assert (copied.averaging, copied.steps, copied.is_shown) == (3.0, 4, is_shown)
    assert copied.param_groups is copied.optimizer.param_groups
    copied.train()
    train(other, copied, 3, 4)
    assert are_equal(controls(other), controls(straight))
    assert are_equal(averages(other, copied), averages(straight, reference))
    assert are_equal(controls(model), before)
    optimizer.train()
    train(model, optimizer, 3, 4)
    assert are_equal(averages(model, optimizer), averages(straight, reference))
    assert schedule.get_last_lr() == [0.01]


def test_a_copy_of_the_optimizer_alone() -> None:
    model = network()
    optimizer = Averaged(SGD(model.parameters(), 0.1))
    train(model, optimizer, 3)
    copied = copy.deepcopy(optimizer)
    copied.eval()
    shown = [parameter.detach() for parameter in copied.param_groups[0]["params"]]
    assert are_equal(shown, averages(model, optimizer))
    assert "Averaged" in repr(copied)


# --- what is refused


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), None, "8", 2j])
def test_wrong_eta(value: Any) -> None:
    message = r"^Averaged: expected averaging >= 0 and finite, found [^\n]*$"
    with without_checked_types(), pytest.raises(ProblemError, match=message):
        Averaged(SGD(network().parameters(), 0.1), value)


@pytest.mark.parametrize("value", [network(), [nn.Parameter(torch.ones(1))], None])
def test_no_optimizer(value: Any) -> None:
    message = r"^Averaged: expected a torch optimizer, found \w+$"
    with without_checked_types(), pytest.raises(ProblemError, match=message):
        Averaged(value)


def test_averages_of_averages() -> None:
    message = "^Averaged: expected an optimizer without averages, found Averaged$"
    with pytest.raises(ProblemError, match=message):
        Averaged(Averaged(SGD(network().parameters(), 0.1)))


def wrong_states() -> dict[str, Any]:
    model = network()
    optimizer = Averaged(SGD(model.parameters(), 0.1, momentum=0.9))
    train(model, optimizer, 1)
    good = optimizer.state_dict()
    optimizer.eval()
    shown = optimizer.state_dict()

    def changed(state: dict[str, Any], number: int, **entries: Any) -> dict[str, Any]:
        values = {name: value for name, value in (state["state"][number] | entries).items()
                  if value is not None}
        return state | {"state": state["state"] | {number: values}}

    without = shown
    for number in range(4):
        without = changed(without, number, averaged_last_control=None)
    fewer = [good["param_groups"][0] | {"params": [0, 1, 2]}]
    nothing = {number: {name: value for name, value in entries.items() if "control" not in name}
               for number, entries in good["state"].items()}
    return {"of the optimizer alone": optimizer.optimizer.state_dict(), "no dictionary": [1],
            "no state": {"param_groups": good["param_groups"]},
            "of fewer parameters": good | {"param_groups": fewer},
            "of other shapes": changed(good, 0, averaged_mean_control=torch.ones(1)),
            "without averages": good | {"state": nothing},
            "of two runs": changed(good, 0, averaged_steps=torch.tensor(7)),
            "without the controls": without}


@pytest.mark.parametrize("name", wrong_states())
def test_wrong_states(name: str) -> None:
    model = network()
    optimizer = Averaged(SGD(model.parameters(), 0.1))
    train(model, optimizer, 2)
    optimizer.eval()
    before = controls(model)
    message = r"^Averaged: [^\n]*(expected|this optimizer has|are not in it)[^\n]*$"
    with without_checked_types(), pytest.raises(ProblemError, match=message):
        optimizer.load_state_dict(wrong_states()[name])
    assert are_equal(controls(model), before)
    assert optimizer.is_shown
    assert optimizer.steps == 2
