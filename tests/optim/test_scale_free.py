"""The unit of the loss means nothing: change(s loss) = change(loss). Zero in, zero out; finite in, finite
out."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optim_kinds import (
    DISCRETE,
    NETS,
    PRICED,
    STAGES,
    Bare,
    Kind,
    Outside,
    assert_near,
    assert_same,
    controls,
    deviation,
    few,
    loss_of,
)
from torch import Tensor, nn

from pontryagin.optim import EMSA
from pontryagin.problem import NonFiniteError

OUTSIDE = {"beside a stage": Kind(Outside, (10, 6)), "without any stage": Kind(Bare, (10, 6))}
RESTING = {name: kind for name, kind in STAGES.items() if "decay" not in name}
"""Stages that nothing but a gradient moves."""
SCALES = [1e-30, 1e-20, 1e-12, 1e-5, 1e6, 1e18, 1e30]
SINGLE, DOUBLE = torch.float32, torch.float64
by_adamw = pytest.mark.filterwarnings("ignore::UserWarning")


def path(kind: Kind, scale: float, steps: int = 6, dtype: torch.dtype = SINGLE) -> list[Tensor]:
    """The controls before the first step and after each, of training on scale * loss."""
    model = kind.model(dtype)
    optimizer, found = kind.optimizer(model), [controls(model)]
    for step in range(steps):
        optimizer.zero_grad()
        (loss_of(model, kind.inputs(step, dtype), step) * scale).backward()
        optimizer.step()
        found.append(controls(model))
    return found


def check_scales(kind: Kind, scales: list[float], tolerance: float, dtype: torch.dtype) -> None:
    """After one step and after six."""
    plain = path(kind, 1.0, dtype=dtype)
    for scale in scales:
        scaled = path(kind, scale, dtype=dtype)
        for step in (1, 6):
            try:
                assert_near(scaled[step], plain[step], plain[0], tolerance)
            except AssertionError as error:
                raise AssertionError(f"loss times {scale:g}, {step} steps: {error}") from error


@pytest.mark.parametrize("dtype", few([SINGLE, DOUBLE], SINGLE), ids=str)
@pytest.mark.parametrize("name", STAGES)
def test_the_unit_of_the_loss(name: str, dtype: torch.dtype) -> None:
    check_scales(STAGES[name], SCALES, 2e-3 if dtype == SINGLE else 1e-7, dtype)


@pytest.mark.parametrize("name", few(["rows", "many rows", "subspace", "convolution", "layer norm",
                                      "embedding"], "many rows", "convolution"))
def test_the_unit_of_the_loss_in_bfloat16(name: str) -> None:
    """By powers of two, so that nothing is rounded otherwise."""
    check_scales(STAGES[name], [2.0**-95, 2.0**-40, 2.0**40, 2.0**95], 0.1, torch.bfloat16)


@pytest.mark.parametrize("name", few([name for name in NETS if name != "binary"], "many rows", "convolutions",
                                     "tokens"))
def test_the_unit_of_the_loss_of_several_layers(name: str) -> None:
    check_scales(NETS[name], SCALES, 1e-6, DOUBLE)


@pytest.mark.parametrize("dtype", few([SINGLE, DOUBLE], SINGLE), ids=str)
@pytest.mark.parametrize("name", [*DISCRETE, *PRICED])
def test_the_unit_of_the_loss_over_discrete_sets(name: str, dtype: torch.dtype) -> None:
    check_scales((DISCRETE | PRICED)[name], SCALES, 1e-3, dtype)


@by_adamw
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("name", OUTSIDE)
def test_larger_units_outside_stages(name: str, dtype: torch.dtype) -> None:
    """AdamW's own epsilon is in units of the gradient, so smaller ones are its affair; squares are to be
    finite."""
    check_scales(OUTSIDE[name], [1e2, 1e6, 1e12, 1e17] + [1e30] * (dtype == DOUBLE), 1e-3, dtype)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.booleans(),
       st.sampled_from([0.0, 0.5, 1.0]), st.floats(-30, 30), st.integers(0, 9))
def test_the_unit_of_the_loss_of_any_linear_layer(inputs: int, outputs: int, rows: int, bias: bool,
                                                  exponent: float, size: float, seed: int) -> None:
    kind = Kind(lambda: nn.Linear(inputs, outputs, bias), (rows, inputs), options={"exponent": exponent})

    def end(scale: float, steps: int) -> Tensor:
        model = kind.model(DOUBLE, seed)
        optimizer = kind.optimizer(model)
        for step in range(steps):
            optimizer.zero_grad()
            (loss_of(model, kind.inputs(seed + step), seed + step) * scale).backward()
            optimizer.step()
        return controls(model)

    for steps in (1, 6):
        assert_near(end(10.0**size, steps), end(1.0, steps), controls(kind.model(DOUBLE, seed)), 1e-6)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=2),
       st.sampled_from(["rows", "many rows", "convolutions"]))
def test_each_layer_has_a_unit_of_its_own(exponents: list[float], name: str) -> None:
    """The gradients of the first layer and of the rest in different units: what vanishes in depth moves as
    the rest."""
    kind = NETS[name]

    def end(scales: list[float]) -> Tensor:
        model = kind.model(DOUBLE)
        optimizer = kind.optimizer(model)
        for step in range(3):
            optimizer.zero_grad()
            loss_of(model, kind.inputs(step), step).backward()
            for part, scale in ((model[0], scales[0]), (model[2:], scales[1])):  # type: ignore[index]
                for parameter in part.parameters():
                    parameter.grad.mul_(scale)
            optimizer.step()
        return controls(model)

    assert_near(end([10.0**each for each in exponents]), end([1.0, 1.0]), controls(kind.model(DOUBLE)), 1e-6)


# --- zero in, zero out --------------------------------------------------------------------------------------


def by_the_loss(model: nn.Module, kind: Kind, step: int) -> None:
    (0 * loss_of(model, kind.inputs(step, SINGLE), step)).backward()


def by_hand(model: nn.Module, kind: Kind, step: int) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)


@by_adamw
@pytest.mark.parametrize("silent", [by_the_loss, by_hand])
@pytest.mark.parametrize("name", [*STAGES, *DISCRETE, *OUTSIDE])
def test_zero_gradients_move_nothing(name: str, silent: Callable[[nn.Module, Kind, int], None]) -> None:
    """From the first step on; then the first gradient moves something, and nothing to infinity."""
    kind = (STAGES | DISCRETE | OUTSIDE)[name]
    model = kind.model(SINGLE)
    optimizer = kind.optimizer(model, weight_decay=0.0)
    start = controls(model)  # of weights that lie in their set
    for step in range(6):
        optimizer.zero_grad()
        silent(model, kind, step)
        optimizer.step()
        assert_same(controls(model), start)
    for step in range(6, 30):
        optimizer.zero_grad()
        loss_of(model, kind.inputs(step, SINGLE), step).backward()
        optimizer.step()
    assert controls(model).isfinite().all()
    assert not torch.equal(controls(model), start)


@pytest.mark.parametrize("name", ["rows", "many rows", "subspace", "convolutions", "norms"])
def test_a_stage_without_gradient_stays_where_others_move(name: str) -> None:
    kind = NETS[name]
    model = kind.model(SINGLE)
    optimizer = kind.optimizer(model)
    first, rest = controls(model[0]), controls(model[2:])  # type: ignore[index]
    for step in range(6):
        optimizer.zero_grad()
        loss_of(model, kind.inputs(step, SINGLE), step).backward()
        for parameter in model[0].parameters():  # type: ignore[index]
            parameter.grad.zero_()
        optimizer.step()
    assert_same(controls(model[0]), first)  # type: ignore[index]
    assert not torch.equal(controls(model[2:]), rest)  # type: ignore[index]


def way_after_silence(kind: Kind, scale: float, dtype: torch.dtype) -> float:
    """How far the entries go in all, at most, from the 50th to the 110th step without a gradient."""
    model = kind.model(dtype)
    optimizer, way = kind.optimizer(model), 0.0
    for step in range(120):
        optimizer.zero_grad()
        (loss_of(model, kind.inputs(step, dtype), step) * (scale if step < 10 else 0.0)).backward()
        before = controls(model)
        optimizer.step()
        if step >= 60:
            way += (controls(model) - before).abs().max().item()
    assert controls(model).isfinite().all()
    return way


@by_adamw
@pytest.mark.parametrize("name", few([*RESTING, *OUTSIDE], "rows", "many rows, no bias",
                                     "subspace, many rows", "depthwise", "layer norm", "embedding",
                                     "one number", "beside a stage"))
def test_a_stage_that_falls_silent_comes_to_rest(name: str) -> None:
    """A momentum of 0.9 has 0.9^50 left, and full length ends at a quarter of what noise leaves: 0.3 of a
    step in all."""
    assert way_after_silence((STAGES | OUTSIDE)[name], 1.0, SINGLE) < 0.3 * 0.03


@pytest.mark.parametrize("scale", few([1e-25, 1e-12, 1e12, 1e25], 1e-25, 1e25))
@pytest.mark.parametrize("name",
                         few(["rows", "many rows", "one number", "convolution"], "many rows", "one number"))
def test_it_comes_to_rest_in_any_unit(name: str, scale: float) -> None:
    assert way_after_silence(STAGES[name], scale, SINGLE) < 0.3 * 0.03


@by_adamw
@pytest.mark.parametrize("name", [*RESTING, *DISCRETE, *OUTSIDE])
def test_without_gradients_nothing_moves_at_all(name: str) -> None:
    """None, as torch's optimizers skip what was not in the loss; forward passes or not."""
    kind = (STAGES | DISCRETE | OUTSIDE)[name]
    model = kind.model(SINGLE)
    optimizer = kind.optimizer(model)
    for step in range(4):
        optimizer.zero_grad()
        loss_of(model, kind.inputs(step, SINGLE), step).backward()
        optimizer.step()
    start = controls(model)
    for step in range(4, 8):
        optimizer.zero_grad()
        if step % 2:
            model(kind.inputs(step, SINGLE))
        optimizer.step()
        assert_same(controls(model), start)


# --- finite in, finite out ----------------------------------------------------------------------------------


class Everything(nn.Module):
    """A layer of most kinds, and a parameter outside any."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=4),
            nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(18, 9), nn.LayerNorm(9),
            nn.Tanh(), nn.Linear(9, 4, bias=False), nn.RMSNorm(4), nn.Linear(4, 3))
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.layers(x)


def assert_finite(model: nn.Module, optimizer: EMSA) -> None:
    """Controls, all tensors of the state, averages."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert not [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    assert not [(names[id(parameter)], key) for parameter, state in optimizer.state.items()
                for key, value in state.items() if isinstance(value, Tensor) and not value.isfinite().all()]
    optimizer.eval()
    assert controls(model).isfinite().all()
    optimizer.train()


@by_adamw
@settings(max_examples=12)
@given(st.data(), st.booleans(), st.sampled_from([4, 40]))
def test_any_finite_gradients(data: st.DataObject, fixed: bool, rows: int) -> None:
    """Scales of the gradients layer by layer over sixty orders of magnitude, the same in all steps or others
    in each."""
    kind = Kind(Everything, (rows, 2, 6, 6))
    model = kind.model(SINGLE)
    optimizer = kind.optimizer(model)
    modules = [*model.layers, model]  # type: ignore[misc]
    scales = st.lists(st.floats(-30, 30), min_size=len(modules), max_size=len(modules))
    drawn = data.draw(scales)
    for step in range(5):
        optimizer.zero_grad()
        loss_of(model, kind.inputs(step, SINGLE), step).backward()
        for module, exponent in zip(modules, drawn if fixed else data.draw(scales), strict=True):
            for parameter in module.parameters(recurse=False):
                parameter.grad.mul_(10.0**exponent).clamp_(-1e35, 1e35)
        optimizer.step()
        assert_finite(model, optimizer)


def rank_one(x: Tensor) -> Tensor:
    return x.flatten(1)[:, :1].view(-1, *[1] * (x.ndim - 1)).expand_as(x).contiguous()


def with_an_outlier(x: Tensor) -> Tensor:
    x[0] *= 1e10
    return x


def uneven(x: Tensor) -> Tensor:
    """Inputs between 1e-10 and 1e10."""
    return x * torch.logspace(-10, 10, x.shape[-1], dtype=x.dtype)


INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": lambda x: torch.full_like(x, 3.0), "zero": torch.zeros_like, "rank one": rank_one,
    "large": lambda x: x * 1e10, "small": lambda x: x * 1e-10,
    "large constant": lambda x: torch.full_like(x, 1e10),
    "tiny": lambda x: x * 1e-25, "outlier": with_an_outlier, "uneven": uneven,
}
VARIED = [name for name, kind in {**RESTING, **DISCRETE}.items()
          if not kind.tokens and "exponent 1" not in name]


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("name", few(VARIED, "rows", "many rows", "subspace", "grouped", "transposed",
                                     "batch norm", "codebook"))
def test_any_finite_inputs(name: str, inputs: str) -> None:
    kind = (RESTING | DISCRETE)[name]
    model = kind.model(SINGLE)
    optimizer = kind.optimizer(model)
    for step in range(6):
        optimizer.zero_grad()
        loss_of(model, INPUTS[inputs](kind.inputs(step, SINGLE)), step).backward()
        assert all(parameter.grad.isfinite().all()
                   for parameter in model.parameters() if parameter.grad is not None)
        optimizer.step()
        assert_finite(model, optimizer)


@given(st.sampled_from([name for name, kind in STAGES.items() if not kind.tokens]), st.floats(-10, 10),
       st.floats(-10, 10), st.sampled_from([SINGLE, DOUBLE]))
def test_any_units_of_inputs_and_loss(name: str, of_inputs: float, of_loss: float,
                                      dtype: torch.dtype) -> None:
    kind = STAGES[name]
    model = kind.model(dtype)
    optimizer = kind.optimizer(model)
    for step in range(5):
        optimizer.zero_grad()
        (loss_of(model, kind.inputs(step, dtype) * 10.0**of_inputs, step) * 10.0**of_loss).backward()
        optimizer.step()
        assert_finite(model, optimizer)


def test_inputs_that_change_their_unit_in_mid_run() -> None:
    model = NETS["many rows"].model(SINGLE)
    optimizer = EMSA(model)
    for step, unit in enumerate([1.0] * 5 + [1e8] * 3 + [1e-8] * 3 + [1.0] * 5):
        optimizer.zero_grad()
        loss_of(model, NETS["many rows"].inputs(step, SINGLE) * unit, step).backward()
        optimizer.step()
        assert_finite(model, optimizer)


# --- what is not finite changes nothing ---------------------------------------------------------------------


def snapshot(model: nn.Module, optimizer: EMSA) -> list[Any]:
    """Controls, averages, and the state as it would be saved."""
    kept = [controls(model)]
    optimizer.eval()
    kept.append(controls(model))
    optimizer.train()
    return [*kept, copy.deepcopy(optimizer.state_dict())]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def stepped(model: nn.Module, optimizer: EMSA, kind: Kind, steps: range, dtype: torch.dtype = SINGLE) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, kind.inputs(step, dtype), step).backward()
        optimizer.step()


POISONED = NETS | OUTSIDE | {name: DISCRETE[name] for name in ("ternary", "codebook", "discrete convolution")}


@by_adamw
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
@pytest.mark.parametrize("before", few([0, 3], 3))
@pytest.mark.parametrize("name", POISONED)
def test_gradients_that_are_not_finite(name: str, before: int, value: float) -> None:
    """In one entry of the last parameter."""
    kind = POISONED[name]
    ends = []
    for disturbed in (False, True):
        model = kind.model(SINGLE)
        optimizer = kind.optimizer(model)
        stepped(model, optimizer, kind, range(before))
        if disturbed:
            poisoned, parameter = list(model.named_parameters())[-1]
            kept = snapshot(model, optimizer)
            optimizer.zero_grad()
            loss_of(model, kind.strange(0, SINGLE), 0).backward()
            parameter.grad.view(-1)[-1] = value  # type: ignore[union-attr]
            with pytest.raises(NonFiniteError, match=poisoned.replace(".", r"\.")):
                optimizer.step()
            assert same(snapshot(model, optimizer), kept)
        stepped(model, optimizer, kind, range(before, before + 5))
        ends.append(controls(model))
    assert_same(*ends)


@by_adamw
@pytest.mark.parametrize("name", POISONED)
def test_every_parameter_is_named_by_its_name(name: str) -> None:
    kind = POISONED[name]
    model = kind.model(SINGLE)
    optimizer = kind.optimizer(model)
    for poisoned, parameter in model.named_parameters():
        optimizer.zero_grad()
        loss_of(model, kind.inputs(0, SINGLE), 0).backward()
        parameter.grad.view(-1)[0] = torch.nan  # type: ignore[union-attr]
        with pytest.raises(NonFiniteError, match=poisoned.replace(".", r"\.")) as caught:
            optimizer.step()
        assert "\n" not in str(caught.value)


@by_adamw
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["many rows", "convolutions", "binary", "beside a stage"])
def test_closures_whose_loss_is_not_finite(name: str, value: float) -> None:
    """With finite gradients, and with those of such a loss."""
    kind = POISONED[name]
    ends = []
    for disturbed in (False, True):
        model = kind.model(SINGLE)
        optimizer = kind.optimizer(model)

        def closure(step: int, factor: float = 1.0, shift: float = 0.0) -> Tensor:
            optimizer.zero_grad()  # noqa: B023
            loss = factor * loss_of(model, kind.inputs(step, SINGLE), step) + shift  # noqa: B023
            loss.backward()
            return loss

        for step in range(5):
            if disturbed:
                kept = snapshot(model, optimizer)
                for bad in ({"factor": value}, {"shift": value}):
                    with pytest.raises(NonFiniteError):
                        optimizer.step(lambda: closure(7, **bad))  # noqa: B023
                assert same(snapshot(model, optimizer), kept)
            optimizer.step(lambda: closure(step))  # noqa: B023
        ends.append(controls(model))
    assert_same(*ends)


@pytest.mark.parametrize("name", ["rows", "many rows", "norms", "tokens"])
def test_batches_that_are_skipped_among_micro_batches(name: str) -> None:
    """Half of a batch is not finite: refused; cleared; the next ones count alone."""
    kind = NETS[name]
    ends = []
    for disturbed in (False, True):
        model = kind.model(SINGLE)
        optimizer = kind.optimizer(model)
        for step in range(6):
            if disturbed:
                optimizer.zero_grad()
                loss_of(model, kind.strange(step, SINGLE), step).backward()
                (torch.nan * deviation(model(kind.inputs(50, SINGLE)), 50)).backward()
                with pytest.raises(NonFiniteError):
                    optimizer.step()
                optimizer.zero_grad()
            stepped(model, optimizer, kind, range(step, step + 1))
        ends.append(controls(model))
    assert_same(*ends)
