"""Parameters of every type, groups in every order, models and states that change: taken, or refused in one
line."""

import copy
import itertools
import re
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optim_builders import emsa, said, without_checked_types
from optim_kinds import (
    DISCRETE,
    NETS,
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
from pontryagin.problem import ProblemError

MANY = NETS["many rows"]
quiet = pytest.mark.filterwarnings("ignore::UserWarning")


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, kind: Kind, numbers: range,
          dtype: torch.dtype = torch.float64, batch: int | None = None) -> list[float]:
    """The losses before each step; batch: one for all steps."""
    losses = []
    for number in numbers:
        optimizer.zero_grad()
        seed = number if batch is None else batch
        loss = loss_of(model, kind.inputs(seed, dtype), seed)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def refused(act: Callable[[], Any], pattern: str) -> None:
    """In one line that matches."""
    with pytest.raises(ProblemError, match=pattern) as caught:
        act()
    assert "\n" not in str(caught.value)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


# --- complex parameters -------------------------------------------------------------------------------------


class Complex(nn.Module):
    """A real layer and a complex one, this by torch's Linear or of bare parameters; or of pairs of real
    numbers."""

    def __init__(self, linear: bool, pairs: bool) -> None:
        super().__init__()
        self.first, self.linear = nn.Linear(4, 4), linear and not pairs
        self.inner = nn.Linear(4, 3, dtype=torch.complex64)
        if pairs or not linear:
            weight, bias = self.inner.weight.detach(), self.inner.bias.detach()
            self.inner = nn.Module()
            self.inner.weight = nn.Parameter(torch.view_as_real(weight).clone() if pairs else weight)
            self.inner.bias = nn.Parameter(torch.view_as_real(bias).clone() if pairs else bias)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.tanh(self.first(x)).to(torch.complex64)
        if self.linear:
            return self.inner(state).abs()
        weight, bias = (each if each.is_complex() else torch.view_as_complex(each)
                        for each in self.inner.parameters())
        return (state @ weight.mT + bias).abs()


@quiet
@pytest.mark.parametrize("linear", [False, True])
def test_complex_parameters_are_pairs_of_real_ones(linear: bool) -> None:
    """Or refused when the optimizer is made."""
    kind, ends = Kind(lambda: nn.Identity(), (12, 4)), []
    for pairs in (False, True):
        torch.manual_seed(0)
        model = Complex(linear, pairs)
        start = controls(model)
        try:
            optimizer = EMSA(model)
        except ProblemError as error:
            assert "complex" in str(error)  # noqa: PT017
            return
        losses = steps(model, optimizer, kind, range(30), torch.float32, batch=0)
        assert losses[-1] < 0.8 * losses[0]
        assert all(not torch.equal(one, other)
                   for one, other in zip(model.parameters(), _fresh(linear, pairs), strict=True))
        optimizer.eval()
        optimizer.train()
        ends.append(controls(model))
    assert_near(ends[0], ends[1], start, 1e-3)


def _fresh(linear: bool, pairs: bool) -> list[Tensor]:
    torch.manual_seed(0)
    return list(Complex(linear, pairs).parameters())


@quiet
def test_a_complex_gradient_that_is_not_finite_is_refused() -> None:
    torch.manual_seed(0)
    model = Complex(False, False)
    try:
        optimizer = EMSA(model)
    except ProblemError:
        return
    deviation(model(torch.randn(8, 4)), 0).backward()
    model.inner.weight.grad[0, 0] = complex(0.0, float("nan"))  # type: ignore[union-attr, index]
    before = controls(model)
    with pytest.raises(ArithmeticError, match=r"inner\.weight"):
        optimizer.step()
    assert_same(controls(model), before)


# --- several types ------------------------------------------------------------------------------------------

TYPES = [torch.float32, torch.float64, torch.bfloat16]


class Mixed(nn.Module):
    def __init__(self, types: tuple[torch.dtype, ...], bare: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6, dtype=dtype) for dtype in types])
        self.scales = nn.ParameterList([torch.ones(6, dtype=dtype) for dtype in types] if bare else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x.to(layer.weight.dtype)))  # type: ignore[union-attr]
        for scale in self.scales:
            x = x.to(scale.dtype) * scale
        return x.float()


@quiet
@pytest.mark.parametrize("rows", few([10, 32], 32))
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("types", [*itertools.permutations(TYPES)],
                         ids=lambda types: " ".join(str(each)[6:] for each in types))
def test_types_in_every_order(types: tuple[torch.dtype, ...], bare: bool, rows: int) -> None:
    torch.manual_seed(0)
    model = Mixed(types, bare)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = EMSA(model)
    losses = steps(model, optimizer, Kind(nn.Identity, (rows, 6)), range(12), torch.float32, batch=0)
    assert losses[-1] < 0.95 * losses[0]
    for parameter, first in zip(model.parameters(), start, strict=True):
        assert parameter.dtype == first.dtype
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, first)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.eval()
    optimizer.train()
    steps(model, optimizer, Kind(nn.Identity, (rows, 6)), range(2), torch.float32, batch=0)


@quiet
@pytest.mark.parametrize("first", [0, 1, 9])
@pytest.mark.parametrize(("before", "after"), [(torch.float32, torch.float64), (torch.float64, torch.float32),
                                               (torch.float32, torch.bfloat16),
                                               (torch.bfloat16, torch.float32)], ids=str)
@pytest.mark.parametrize("name", few(["rows", "many rows", "convolutions", "norms", "outside"], "many rows",
                                     "outside"))
def test_a_model_that_changes_its_type_in_mid_run(name: str, before: torch.dtype, after: torch.dtype,
                                                  first: int) -> None:
    kind = {**NETS, "outside": Kind(Outside, (10, 6))}[name]
    model = kind.model(before)
    optimizer = kind.optimizer(model)
    losses = steps(model, optimizer, kind, range(first), before, batch=0)
    model.to(after)
    losses += steps(model, optimizer, kind, range(first, first + 10), after, batch=0)
    assert all(parameter.dtype == after and parameter.isfinite().all() for parameter in model.parameters())
    assert losses[-1] < losses[first]
    kept = controls(model)
    optimizer.eval()
    assert controls(model).isfinite().all()
    assert all(parameter.dtype == after for parameter in model.parameters())
    optimizer.train()
    assert_same(controls(model), kept)


def test_the_steps_after_a_change_to_double_are_those_of_before() -> None:
    """To the rounding of single precision."""
    ends = []
    for change in (False, True):
        model = MANY.model(torch.float32)
        optimizer = EMSA(model)
        steps(model, optimizer, MANY, range(4), torch.float32)
        if change:
            model.double()
        steps(model, optimizer, MANY, range(4, 10), torch.float64 if change else torch.float32)
        ends.append(controls(model))
        names = "mean", "basis", "velocity", "bias_velocity"
        dtypes = {optimizer.state[weight][name].dtype for name in names
                  for weight in model.parameters() if weight.ndim == 2}
        assert dtypes == {torch.float64 if change else torch.float32}
    assert_near(ends[1], ends[0], controls(MANY.model(torch.float32)), 2e-3)


# --- groups -------------------------------------------------------------------------------------------------


def of_groups(make: Callable[[nn.Module], list[dict[str, Any]]], count: int = 8) -> Tensor:
    model = MANY.model()
    optimizer = EMSA(model, make(model))
    steps(model, optimizer, MANY, range(count))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.eval()
    optimizer.train()
    steps(model, optimizer, MANY, range(count, count + 3))
    return controls(model)


def in_groups(model: Any) -> EMSA:
    """One for each of two layers."""
    return EMSA(model, [{"params": model[0].parameters()}, {"params": model[2].parameters()}])


EMPTY = {"params": [], "weight_decay": 0.5}


@pytest.mark.parametrize(("make", "same"), [
    (lambda model: [EMPTY, {"params": list(model.parameters())}], [None]),
    (lambda model: [{"params": list(model.parameters())}, EMPTY], [None]),
    (lambda model: [EMPTY, EMPTY, {"params": model[0].parameters()}, EMPTY,
                    {"params": model[2].parameters()}, EMPTY], [0, 2]),
], ids=["first", "last", "everywhere"])
def test_empty_groups(make: Callable[[nn.Module], list[dict[str, Any]]], same: list[int | None]) -> None:
    """As the same groups (layers, None: all) without the empty ones; other groups round otherwise."""
    expected = of_groups(lambda model: [
        {"params": list((model if layer is None else model[layer]).parameters())} for layer in same])
    assert_same(of_groups(lambda model: [dict(group) for group in make(model)]), expected)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_frozen_groups(place: int) -> None:
    """All of a group's parameters; the others move as without it."""
    ends = []
    for grouped in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
        model = model.double()
        model[2].requires_grad_(False)
        groups = [{"params": list(model[n].parameters())} for n in (0, 4)]
        if grouped:
            groups.insert(place, {"params": list(model[2].parameters())})
        steps(model, EMSA(model, groups), MANY, range(8))
        ends.append(controls(model))
    assert_same(*ends)


def test_nothing_to_train() -> None:
    """As torch's optimizers: steps are taken, nothing moves."""
    model = MANY.model()
    start = controls(model)
    model.requires_grad_(False)
    kinds = (None, [dict(EMPTY)], [dict(EMPTY), {"params": model.parameters()}])
    for optimizer in [EMSA(model, groups) for groups in kinds]:
        optimizer.step()
        optimizer.zero_grad()
        optimizer.eval()
        optimizer.train()
        optimizer.stages()
        optimizer.load_state_dict(optimizer.state_dict())
    assert_same(controls(model), start)


def test_the_first_group_is_frozen_and_then_not() -> None:
    model = MANY.model()
    model[0].requires_grad_(False)  # type: ignore[index]
    optimizer = in_groups(model)
    steps(model, optimizer, MANY, range(5))
    model.requires_grad_(True)
    before = controls(model)
    steps(model, optimizer, MANY, range(5, 8))
    assert (controls(model) != before).all()


# --- sizes --------------------------------------------------------------------------------------------------


class NoTable(nn.Module):
    """An embedding of no components beside one that has some."""

    def __init__(self) -> None:
        super().__init__()
        self.none, self.some, self.head = nn.Embedding(5, 0), nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, 0].abs().clamp_max(4).long()
        return self.head(torch.cat([self.none(tokens), self.some(tokens)], 1))


class Beside(nn.Module):
    """Layers without inputs or outputs beside one that has both."""

    def __init__(self, *none: nn.Module) -> None:
        super().__init__()
        self.main, self.none = nn.Linear(6, 3), nn.Sequential(*none)

    def forward(self, x: Tensor) -> Tensor:
        first = self.none[0]
        size = getattr(first, "in_features", getattr(first, "in_channels", 6))
        return self.main(x) + self.none(x[:, :size]).sum()


@quiet
@pytest.mark.parametrize("make", [
    lambda: Beside(nn.Linear(0, 4)), lambda: Beside(nn.Linear(6, 0)),
    lambda: Beside(nn.Linear(6, 0), nn.Linear(0, 3)),
    lambda: Beside(nn.Linear(0, 0)), lambda: Beside(nn.Linear(0, 4, bias=False)), NoTable,
], ids=["no inputs", "no outputs", "neck of none", "nothing", "no bias", "table"])
@pytest.mark.parametrize("rows", [4, 32])
def test_layers_of_size_zero(make: Callable[[], nn.Module], rows: int) -> None:
    kind = Kind(make, (rows, 6))
    model = kind.model()
    optimizer = kind.optimizer(model)
    losses = steps(model, optimizer, kind, range(20), batch=0)
    assert losses[-1] < losses[0]
    assert controls(model).isfinite().all()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.eval()
    optimizer.train()
    optimizer.stages()


@pytest.mark.parametrize("first", [0, 3, 9])
@pytest.mark.parametrize("name", few([name for name in NETS if name != "norms"], "many rows", "convolutions",
                                     "binary"))
def test_a_batch_of_no_rows(name: str, first: int) -> None:
    """The shard of a process that got none: zero gradients."""
    kind = NETS[name]
    model = kind.model()
    optimizer = kind.optimizer(model)
    steps(model, optimizer, kind, range(first))
    before = controls(model)
    optimizer.zero_grad()
    model(kind.inputs(0)[:0]).sum().backward()
    optimizer.step()
    if not first:
        assert_same(controls(model), before)
    assert controls(model).isfinite().all()
    losses = steps(model, optimizer, kind, range(first, first + 30), batch=0)
    assert controls(model).isfinite().all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["rows", "many rows", "tokens"])
def test_a_micro_batch_of_no_rows_is_none(name: str) -> None:
    ends = []
    for extra in (False, True):
        model = NETS[name].model()
        optimizer = NETS[name].optimizer(model)
        for step in range(8):
            optimizer.zero_grad()
            if extra:
                model(NETS[name].inputs(0)[:0]).sum().backward()
            loss_of(model, NETS[name].inputs(step), step).backward()
            optimizer.step()
        ends.append(controls(model))
    assert_near(ends[1], ends[0], controls(NETS[name].model()), 1e-9)


@pytest.mark.filterwarnings("ignore")  # of torch's nested tensors
@pytest.mark.parametrize("lengths", [(2, 5, 3), (20, 1, 19)])
def test_jagged_sequences(lengths: tuple[int, ...]) -> None:
    """Trained as their rows are, one after the other."""
    ends, outside = [], []
    for jagged in (False, True):
        torch.manual_seed(0)
        first, norm, last = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        model = nn.Sequential(first, norm, last).double()
        optimizer, start = EMSA(model), controls(model)
        for step in range(8):
            generator = torch.Generator().manual_seed(step)
            parts = [torch.randn(length, 6, generator=generator, dtype=torch.float64) for length in lengths]
            optimizer.zero_grad()
            x = torch.nested.nested_tensor(parts, layout=torch.jagged) if jagged else torch.cat(parts)
            output = model(x)
            deviation(output.values() if jagged else output, step).backward()
            optimizer.step()
        ends.append(controls(model))
        outside += [row.name for row in optimizer.stages().rows if row.maximized.startswith("AdamW")]
    assert ends[1].isfinite().all()
    if not outside:
        assert_near(ends[1], ends[0], start, 1e-6)


# --- models that are not there, or change -------------------------------------------------------------------


@pytest.mark.parametrize("part", [False, True])
def test_models_without_storage(part: bool) -> None:
    """Refused at once, or when they have become others."""
    with torch.device("meta"):
        last = nn.Linear(8, 3)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), last) if part else nn.Sequential(
        nn.Linear(6, 8, device="meta"), nn.Tanh(), last)
    try:
        optimizer = EMSA(model)
    except ProblemError as error:
        assert "meta" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return
    model.to_empty(device="cpu")
    for module in (model[0], model[2]):
        module.reset_parameters()  # type: ignore[operator]
    deviation(model(torch.randn(8, 6)), 0).backward()
    refused(optimizer.step, "meta|parameter")


def shifted(model: nn.Module, by: float) -> dict[str, Tensor]:
    return {name: value + by for name, value in model.state_dict().items()}


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("name", few(["rows", "many rows", "convolutions", "tokens"], "many rows", "tokens"))
def test_averages_begin_anew_with_loaded_weights(name: str, after: int) -> None:
    """What eval() shows lies near the weights that were loaded, not where the run was before."""
    kind = NETS[name]
    model = kind.model()
    optimizer = kind.optimizer(model)
    steps(model, optimizer, kind, range(40))
    model.load_state_dict(shifted(model, 5.0))
    loaded = controls(model)
    optimizer.param_groups[0]["lr"] = 0.003
    steps(model, optimizer, kind, range(40, 40 + after))
    last = controls(model)
    optimizer.eval()
    assert (controls(model) - loaded).abs().max() < 0.5
    optimizer.train()
    assert_same(controls(model), last)
    steps(model, optimizer, kind, range(60, 64))
    assert controls(model).isfinite().all()


def test_averages_begin_anew_with_the_weights_of_one_layer() -> None:
    model = MANY.model()
    optimizer = EMSA(model)
    steps(model, optimizer, MANY, range(40))
    model[0].load_state_dict(shifted(model[0], 5.0))  # type: ignore[index]
    loaded = controls(model[0])  # type: ignore[index]
    optimizer.eval()
    assert (controls(model[0]) - loaded).abs().max() < 0.5  # type: ignore[index]


@pytest.mark.parametrize("name", ["rows", "many rows", "convolutions"])
def test_weights_that_are_loaded_while_averages_are_shown_stay(name: str) -> None:
    kind = NETS[name]
    model = kind.model()
    optimizer = kind.optimizer(model)
    steps(model, optimizer, kind, range(10))
    optimizer.eval()
    model.load_state_dict(shifted(model, 5.0))
    loaded = controls(model)
    optimizer.train()
    assert_same(controls(model), loaded)
    optimizer.param_groups[0]["lr"] = 0.003
    steps(model, optimizer, kind, range(10, 12))
    optimizer.eval()
    assert (controls(model) - loaded).abs().max() < 0.5


@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize("name", ["many rows", "convolutions", "binary"])
def test_checkpoints_are_loaded_in_any_order(name: str, model_first: bool) -> None:
    kind = NETS[name]
    model = kind.model()
    optimizer = kind.optimizer(model)
    steps(model, optimizer, kind, range(10))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    other = kind.model(seed=5)
    its = kind.optimizer(other)
    steps(other, its, kind, range(3))
    its.zero_grad()
    if model_first:
        other.load_state_dict(saved[0])
    its.load_state_dict(saved[1])
    if not model_first:
        other.load_state_dict(saved[0])
    steps(model, optimizer, kind, range(10, 16))
    steps(other, its, kind, range(10, 16))
    assert_same(controls(other), controls(model))
    if model_first:
        optimizer.eval()
        its.eval()
        assert_same(controls(other), controls(model))


class Growing(nn.Module):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        self.late = nn.Linear(3, 3) if whole else None

    def forward(self, x: Tensor, late: bool) -> Tensor:
        return self.late(torch.tanh(self.body(x))) if late and self.late is not None else self.body(x)


@pytest.mark.parametrize("first", [0, 3, 21])
def test_a_layer_that_is_appended_later_is_a_stage(first: int) -> None:
    """Trained as one that was there from the start and was added to the groups at the same step."""
    ends = []
    for whole in (True, False):
        torch.manual_seed(0)
        model = Growing(whole).double()
        if whole:
            start = copy.deepcopy(model.late)
        optimizer = EMSA(model, model.body.parameters())
        for step in range(first + 10):
            if step == first:
                if not whole:
                    model.late = copy.deepcopy(start)
                late = model.late.parameters()  # type: ignore[union-attr]
                optimizer.add_param_group({"params": late, "lr": 0.02})
            optimizer.zero_grad()
            deviation(model(MANY.inputs(step), step >= first), step).backward()
            optimizer.step()
        rows = {row.name: row for row in optimizer.stages().rows}
        assert rows["late.weight"].kind == "Linear"
        assert rows["late.weight"].maximized.startswith("closed form")
        ends.append(controls(model))
    assert_same(ends[1], ends[0])


def test_parameters_of_another_model_are_still_refused() -> None:
    optimizer = EMSA(MANY.model())
    other = MANY.model().parameters()
    refused(lambda: optimizer.add_param_group({"params": other}), "not one of the model's")
    assert len(optimizer.param_groups) == 1


REPLACEMENTS: dict[str, Callable[[Any], Any]] = {
    "a larger table": lambda model: setattr(model.table, "weight", nn.Parameter(torch.cat(
        [model.table.weight.detach(), torch.zeros(2, 5, dtype=torch.float64)]))),
    "another table": lambda model: setattr(model, "table", nn.Embedding(7, 5, dtype=torch.float64)),
    "another head": lambda model: setattr(model, "head", nn.Linear(5, 3, dtype=torch.float64)),
    "a weight of the same shape": lambda model: setattr(
        model.head, "weight", nn.Parameter(model.head.weight.detach().clone())),
}


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_replaced_parameters_are_named(name: str, first: int) -> None:
    """The optimizer still holds the old one, which nothing uses: at the next step this is said."""
    kind = NETS["tokens"]
    model = kind.model()
    optimizer = kind.optimizer(model)
    steps(model, optimizer, kind, range(first))
    REPLACEMENTS[name](model)
    part = "head" if "head" in name or "weight" in name else "table"
    with said() as texts:
        try:
            steps(model, optimizer, kind, range(first, first + 1))
        except ProblemError as error:
            assert part in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            return
    assert any(part in text for text in texts), texts


@pytest.mark.filterwarnings("ignore")  # of torch's
@pytest.mark.parametrize("original", [False, True])
def test_models_in_fsdp_are_refused_with_advice(original: bool) -> None:
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_gloo_available() or distributed.is_initialized():
        pytest.skip("no group of one process")
    from torch.distributed.fsdp import FullyShardedDataParallel

    with tempfile.TemporaryDirectory() as folder:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
            wrapped, inside = (FullyShardedDataParallel(part, use_orig_params=original,
                                                        device_id=torch.device("cpu"))
                               for part in (model, nn.Linear(6, 8)))
            refused(lambda: EMSA(wrapped), "DistributedDataParallel")
            refused(lambda: EMSA(nn.Sequential(inside, nn.Linear(8, 3))), "DistributedDataParallel")
        finally:
            distributed.destroy_process_group()


# --- states that do not fit ---------------------------------------------------------------------------------


def saved(make: Callable[[nn.Module], torch.optim.Optimizer], width: int = 8, layers: int = 2,
          dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """The state after three steps."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3),
                          *[nn.Linear(3, 3) for _ in range(layers - 2)]).to(dtype)
    optimizer = make(model)
    steps(model, optimizer, MANY, range(3), dtype)
    return copy.deepcopy(optimizer.state_dict())


def with_more(key: str, value: Any) -> dict[str, Any]:
    state = saved(EMSA)
    state["state"][0][key] = value
    return state


def of_other_type(dtype: torch.dtype) -> dict[str, Any]:
    state = saved(EMSA)
    state["state"][0] = {key: value.to(dtype) if isinstance(value, Tensor) and value.ndim > 1 else value
                         for key, value in state["state"][0].items()}
    return state


def without_in_group(key: str) -> dict[str, Any]:
    state = saved(EMSA)
    del state["param_groups"][0][key]
    return state


def of_an_older_version() -> dict[str, Any]:
    """As the settings were called before."""
    state = saved(EMSA)
    for group in state["param_groups"]:
        for new, old in (("exponent", "power"), ("rho_decay", "memory"), ("step_scale", "relaxation")):
            group[old] = group.pop(new)
    return state


def in_two_groups() -> dict[str, Any]:
    return saved(in_groups)


FOREIGN: dict[str, Callable[[], Any]] = {
    "Adam": lambda: saved(lambda model: torch.optim.Adam(model.parameters())),
    "AdamW": lambda: saved(lambda model: torch.optim.AdamW(model.parameters())),
    "SGD": lambda: saved(lambda model: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)),
    "RMSprop": lambda: saved(lambda model: torch.optim.RMSprop(model.parameters())),
    "narrower": lambda: saved(EMSA, 7), "wider": lambda: saved(EMSA, 80),
    "deeper": lambda: saved(EMSA, layers=3),
    "of a part": lambda: saved(lambda model: EMSA(model, model[0].parameters())),  # type: ignore[index]
    "in two groups": in_two_groups,
    "single": lambda: saved(EMSA, dtype=torch.float32), "integers": lambda: of_other_type(torch.int64),
    "half": lambda: of_other_type(torch.bfloat16),
    "more": lambda: with_more("exp_avg", torch.zeros(8, 6)), "a word more": lambda: with_more("note", "mine"),
    "older": of_an_older_version, "no lr": lambda: without_in_group("lr"),
    "no params": lambda: without_in_group("params"), "no groups": lambda: {"state": {}},
    "no state": lambda: {"param_groups": saved(EMSA)["param_groups"]}, "nothing": dict,
}


def check_refused(state: Any, first: int) -> None:
    """Nothing is changed, and training goes on."""
    model, plain = MANY.model(), MANY.model()
    optimizer, reference = EMSA(model), EMSA(plain)
    steps(model, optimizer, MANY, range(first))
    steps(plain, reference, MANY, range(first))
    before, given = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(state)
    refused(lambda: optimizer.load_state_dict(state), "state|group|param|lr")
    assert same(optimizer.state_dict(), before)
    assert same(state, given)
    steps(model, optimizer, MANY, range(first, first + 5))
    steps(plain, reference, MANY, range(first, first + 5))
    assert_same(controls(model), controls(plain))


@pytest.mark.parametrize("first", few([0, 3], 3))
@pytest.mark.parametrize("name", FOREIGN)
def test_states_that_do_not_fit_are_refused(name: str, first: int) -> None:
    check_refused(FOREIGN[name](), first)


@pytest.mark.parametrize("number", few([0, 2], 0))
def test_states_with_a_missing_entry_are_refused(number: int) -> None:
    """Any entry of a weight but the average and the bias's momentum: a run without averages, or with frozen
    biases, has none."""
    whole, taken = saved(EMSA), []
    for key in whole["state"][number].keys() - {"mean_control", "last_control", "bias_velocity"}:
        state = copy.deepcopy(whole)
        del state["state"][number][key]
        try:
            check_refused(state, 2)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001
            taken.append((key, type(error).__name__))
    assert not taken


def test_discrete_and_free_states_do_not_fit_each_other() -> None:
    ends = []
    for options in ({}, DISCRETE["binary"].options):
        kind = Kind(lambda: nn.Linear(6, 8, bias=False), (20, 6), options=options)
        model = kind.model()
        optimizer = kind.optimizer(model)
        steps(model, optimizer, kind, range(3))
        ends.append(optimizer)
    refused(lambda: ends[0].load_state_dict(ends[1].state_dict()), "state|param|weight")
    refused(lambda: ends[1].load_state_dict(ends[0].state_dict()), "state|param|weight")


def test_hooks_before_loading_may_give_another_state() -> None:
    state = saved(EMSA)
    model, plain = MANY.model(), MANY.model()
    optimizer, reference = EMSA(model), EMSA(plain)
    other = copy.deepcopy(state)
    other["param_groups"][0]["lr"] = 0.5
    foreign = saved(lambda one: torch.optim.AdamW(one.parameters()))
    calls = []
    optimizer.register_load_state_dict_pre_hook(lambda one, given: copy.deepcopy(other))
    optimizer.register_load_state_dict_post_hook(lambda one: calls.append(one))
    optimizer.load_state_dict(foreign)
    reference.load_state_dict(other)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert calls == [optimizer]
    assert same(optimizer.state_dict(), reference.state_dict())
    steps(model, optimizer, MANY, range(4))
    steps(plain, reference, MANY, range(4))
    assert_same(controls(model), controls(plain))


def test_hooks_before_loading_that_return_nothing_change_nothing() -> None:
    state = saved(EMSA)
    optimizer = EMSA(MANY.model())
    seen = []
    optimizer.register_load_state_dict_pre_hook(
        lambda one, given: seen.append(given["param_groups"][0]["lr"]))
    optimizer.load_state_dict(state)
    assert seen == [0.03]
    assert same(optimizer.state_dict(), state)


# --- settings -----------------------------------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
SETTINGS = [
    ("lr", INF), ("lr", NAN), ("lr", -INF), ("damping", INF), ("damping", NAN), ("exponent", NAN),
    ("exponent", INF), ("momentum", 1), ("momentum", NAN), ("momentum", INF), ("rho_decay", 1),
    ("rho_decay", NAN), ("weight_decay", INF), ("weight_decay", NAN), ("adamw_lr", INF), ("adamw_lr", NAN),
    ("averaging", INF), ("averaging", NAN), ("averaging", -1), ("flip_rate", INF), ("flip_rate", NAN),
    ("density", NAN), ("density", INF), ("refresh_budget", INF), ("refresh_budget", NAN),
    ("refresh_budget", -1), ("metric_rank", 2.5), ("metric_rank", NAN), ("metric_rank", INF),
    ("metric_rank", -3), ("moment_rows", 100.5), ("moment_rows", NAN), ("moment_rows", INF),
    ("moment_rows", -1),
]
OF_ALL = {"refresh_budget", "metric_rank", "moment_rows"}


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_settings_that_make_no_sense(name: str, value: float) -> None:
    model = MANY.model()
    with without_checked_types():
        refused(lambda: emsa(model, **{name: value}), name)
    if name in OF_ALL:
        return
    refused(lambda: EMSA(model, [{"params": model.parameters(), name: value}]), name)
    optimizer = EMSA(model, model[0].parameters())  # type: ignore[index]
    last = model[2].parameters()  # type: ignore[index]
    refused(lambda: optimizer.add_param_group({"params": last, name: value}), name)
    assert len(optimizer.param_groups) == 1
    steps(model, optimizer, MANY, range(2))


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_tensors_that_make_no_sense(name: str) -> None:
    for value in (INF, NAN):
        with without_checked_types():
            refused(lambda: EMSA(MANY.model(), **{name: torch.tensor(value)}), name)  # noqa: B023


@pytest.mark.parametrize("name", ["rows", "many rows", "convolutions", "binary"])
def test_lr_as_a_tensor(name: str) -> None:
    """Also in a schedule, and through a state that is saved and loaded."""
    kind, ends = NETS[name], []
    rate = kind.options.get("lr", 0.03)
    for lr in (rate, torch.tensor(rate, dtype=torch.float64)):
        model = kind.model()
        optimizer = kind.optimizer(model, lr=lr)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        for step in range(8):
            steps(model, optimizer, kind, range(step, step + 1))
            schedule.step()
            if step == 5:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        ends.append(controls(model))
    assert_near(ends[1], ends[0], controls(kind.model()) if name != "binary" else torch.zeros(()), 1e-9)


@quiet
def test_a_tensor_lr_outside_stages_and_on_small_precision() -> None:
    ends = []
    for lr in (0.03, torch.tensor(0.03)):
        kind = Kind(Outside, (10, 6))
        model = kind.model(torch.float32)
        steps(model, kind.optimizer(model, lr=lr), kind, range(8), torch.float32)
        ends.append(controls(model))
    assert_near(ends[1], ends[0], controls(Kind(Outside, (10, 6)).model(torch.float32)), 1e-4)


# --- parameters outside stages ------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_model_without_stages_is_trained_by_adamw(decay: bool) -> None:
    """Decay as EMSA has it: of matrices alone."""
    kind = Kind(Bare, (10, 6))
    model, plain = kind.model(), kind.model()
    optimizer = EMSA(model, lr=0.1, adamw_lr=0.2, weight_decay=decay)
    groups = [{"params": [plain.matrix], "weight_decay": 5 * decay}, {"params": [plain.shift]}]
    reference = torch.optim.AdamW(groups, 0.02, (0.9, 0.99), weight_decay=0.0)
    steps(model, optimizer, kind, range(12))
    steps(plain, reference, kind, range(12))
    assert_near(controls(model), controls(plain), controls(kind.model()), 1e-7)
    maximized = {row.name: row.maximized for row in optimizer.stages().rows}
    assert maximized == {"matrix": "AdamW", "shift": "AdamW"}
    kept = controls(model)
    optimizer.eval()
    assert not torch.equal(controls(model), kept)
    optimizer.train()
    assert_same(controls(model), kept)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


class Gate(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.a_rather_long_name_of_a_parameter_of_a_gate = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.a_rather_long_name_of_a_parameter_of_a_gate


class Offset(Gate):
    pass


@pytest.mark.parametrize("count", [1, 3, 40, 240])
def test_the_warning_is_short_and_says_how_much_and_of_which_classes(count: int) -> None:
    """At most three lines of a terminal, whatever the model's size; 240 of 1200 parameters are outside."""
    gates = [(Gate if n % 2 else Offset)(240 // count) for n in range(count)]
    model = nn.Sequential(nn.Linear(15, 60), *gates)
    with said() as texts:
        optimizer = EMSA(model)
    assert len(texts) == 1
    text = texts[0]
    assert "AdamW" in text
    assert text.count("\n") <= 2
    assert len(text) <= 3 * 160
    assert re.search(r"\b20(\.0+)? ?%", text), text
    assert "Offset" in text
    assert count == 1 or "Gate" in text
    assert sum(row.maximized == "AdamW" for row in optimizer.stages().rows) == count


def test_the_warning_of_many_classes_is_short_too() -> None:
    parts = [type(f"Part{n}", (Gate,), {})(3) for n in range(200)]
    with said() as texts:
        EMSA(nn.Sequential(nn.Linear(20, 20), *parts))
    assert len(texts) == 1
    assert texts[0].count("\n") <= 2
    assert len(texts[0]) <= 3 * 160
    assert "Part" in texts[0]
