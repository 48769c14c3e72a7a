"""Ordinary steps are those of any other way, bit by bit, and are left where something is not as it was."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from optim_deeds import DEEDS
from torch import Tensor, nn

from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.optim import EMSA, Averaged, Bound, compiled
from pontryagin.optim.compiled import begun, centred, gathered, nesterov, nesterov_placed, placed

pytestmark = pytest.mark.skipif(compiled.compiler() is None, reason="numba is not installed")
Between = Callable[[int, nn.Module, EMSA], None]


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 9, bias=False), nn.Tanh(), nn.Linear(9, 3))


def without_biases() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9, bias=False), nn.Tanh(), nn.Linear(9, 3, bias=False))


def wide() -> nn.Module:
    """Inputs of which a subspace is known."""
    return nn.Sequential(nn.Linear(6, 90), nn.Tanh(), nn.Linear(90, 3))


def narrow() -> nn.Module:
    """A stage of one input."""
    return nn.Sequential(nn.Linear(6, 1), nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 3))


class Scaled(nn.Module):
    """With parameters that belong to no stage."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))
        self.gain, self.matrix = nn.Parameter(torch.ones(3)), nn.Parameter(0.1 * torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out * self.gain + out @ self.matrix


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(),
                         nn.Linear(12, 3))


class Table(nn.Module):
    """With a table of embeddings, which is in no pack."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.table((x > 0).sum(1)).tanh())
        return out


MODELS = {"plain": plain, "without biases": without_biases, "wide": wide, "narrow": narrow, "scaled": Scaled,
          "convolutions": convolutions, "table": Table}


class Counted(EMSA):
    """Counts its ordinary steps."""

    taken = 0

    def _ordinary_step(self, loss: Any) -> bool:
        found = super()._ordinary_step(loss)
        self.taken += found
        return found


class Never(EMSA):
    """Takes none."""

    def _ordinary_step(self, loss: Any) -> bool:
        return False


def run(kind: type[EMSA], make: Callable[[], nn.Module] = plain, between: Between | None = None,
        dtype: torch.dtype = torch.float32, steps: int = 60, told: bool = True, groups: Any = None,
        rows: int = 7, **options: Any) -> tuple[nn.Module, EMSA]:
    torch.manual_seed(0)
    model = make().to(dtype)
    optimizer = kind(model, None if groups is None else groups(model), **options)
    for n in range(steps):
        x = torch.randn(rows, 6, dtype=dtype)
        optimizer.zero_grad()
        loss = (model(x) - x[:, :3]).square().mean()
        loss.backward()
        if between is not None:
            between(n, model, optimizer)
        optimizer.step(loss=loss if told else None)
    return model, optimizer


def both(least: int, *arguments: Any, **options: Any) -> None:
    """Both ways give the same bits, and at least so many steps are ordinary."""
    model, optimizer = run(Counted, *arguments, **options)
    other, expected = run(Never, *arguments, **options)
    assert isinstance(optimizer, Counted)
    assert optimizer.taken >= least
    same(model.state_dict(), other.state_dict())
    same(optimizer.state_dict(), expected.state_dict())
    optimizer.eval()
    expected.eval()
    same(model.state_dict(), other.state_dict())


def same(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            same(value, other[key])
    elif isinstance(one, list | tuple):
        for value, expected in zip(one, other, strict=True):
            same(value, expected)
    else:
        assert one == other


@pytest.mark.filterwarnings("ignore:EMSA")
@pytest.mark.parametrize("rows", [7, 40], ids=["by rows", "polar"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits(name: str, dtype: torch.dtype, rows: int) -> None:
    both(20, MODELS[name], dtype=dtype, rows=rows)


@pytest.mark.filterwarnings("ignore:EMSA")
@pytest.mark.parametrize("make", [Table, Scaled])
def test_what_is_in_no_pack_decays_as_in_any_step(make: Callable[[], nn.Module]) -> None:
    both(20, make, weight_decay=0.1)


@pytest.mark.parametrize("options", [{"told": False}, {"lr": 0.0}, {"momentum": 0.0}, {"steps": 300},
                                     {"weight_decay": 0.1}])
def test_options(options: dict[str, Any]) -> None:
    both(20, **options)


@pytest.mark.parametrize("options", [{"averaging": None}, {"acceptance": None}])
def test_options_that_make_other_steps(options: dict[str, Any]) -> None:
    both(0, **options)
    _, optimizer = run(Counted, **options)
    assert isinstance(optimizer, Counted)
    assert optimizer.taken == 0


def of_two_rates(model: nn.Module) -> list[dict[str, Any]]:
    weights = list(model.parameters())
    return [{"params": weights[:2], "lr": 0.01}, {"params": weights[2:], "averaging": 4.0, "momentum": 0.5}]


@pytest.mark.filterwarnings("ignore:EMSA")
@pytest.mark.parametrize("make", [plain, Scaled])
def test_groups(make: Callable[[], nn.Module]) -> None:
    both(20, make, groups=of_two_rates)


def one_decays(model: nn.Module) -> list[dict[str, Any]]:
    weights = list(model.parameters())
    return [{"params": weights[:2]}, {"params": weights[2:], "weight_decay": 0.1}]


def test_a_group_that_decays() -> None:
    both(20, groups=one_decays)


def test_matrices_decay_as_they_are_to() -> None:
    """With a rate at which gradients move nothing, by (1 - lr decay) in every step, vectors not at all."""
    torch.manual_seed(0)
    model = plain()
    optimizer = Counted(model, lr=1e-30, weight_decay=1e28, acceptance=Bound(stretch=1.0))
    before = [one.detach().clone() for one in model.parameters()]
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(torch.randn(12, 6)).square().mean()
        loss.backward()
        optimizer.step()
    assert optimizer.taken > 20
    for one, other in zip(model.parameters(), before, strict=True):
        expected = other * (1 - 1e-2)**60 if one.ndim > 1 else other
        torch.testing.assert_close(one.detach(), expected, rtol=1e-4, atol=1e-6)


def exchanged(n: int, model: nn.Module, _: EMSA) -> None:
    """A module by one that computes its weight from it."""
    if n == 40:
        nn.utils.parametrizations.weight_norm(model[0])  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:EMSA")
@pytest.mark.parametrize("between", DEEDS)
@pytest.mark.parametrize("make", [plain, Scaled])
def test_what_others_do(between: Between, make: Callable[[], nn.Module]) -> None:
    both(1, make, between)


def of_one_buffer() -> nn.Module:
    """Parameters that torch counts as one written tensor."""
    model = plain()
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()
    for module in model.children():
        for name, parameter in list(module.named_parameters()):
            part, flat = flat[:parameter.numel()], flat[parameter.numel():]
            setattr(module, name, nn.Parameter(part.view_as(parameter)))
    return model


def test_parameters_of_one_buffer() -> None:
    model, optimizer = run(Counted, of_one_buffer)
    other, expected = run(Never, plain)
    assert isinstance(optimizer, Counted)
    assert optimizer.taken >= 20
    same(optimizer.state_dict(), expected.state_dict())
    optimizer.eval()
    expected.eval()
    same(model.state_dict(), other.state_dict())


def test_two_batches_of_gradients_in_place() -> None:
    def kept(n: int, model: nn.Module, optimizer: EMSA) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.1) if n == 0 else parameter.grad
        optimizer.zero_grad = lambda set_to_none=True: torch._foreach_zero_(  # type: ignore[method-assign]
            [one.grad for one in model.parameters() if one.grad is not None])

    both(20, plain, kept)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    model, optimizer = run(Counted)
    before = deepcopy(model.state_dict()), deepcopy(optimizer.state_dict())
    for value in (np.nan, np.inf):
        for parameter in model.parameters():
            assert parameter.grad is not None
            kept = parameter.grad.clone()
            parameter.grad.view(-1)[0] = value
            with pytest.raises(NonFiniteError, match="gradient"):
                optimizer.step()
            parameter.grad.copy_(kept)
    same(model.state_dict(), before[0])
    same(optimizer.state_dict(), before[1])


def test_a_step_that_is_not_finite_is_refused() -> None:
    model, optimizer = run(Counted)
    assert isinstance(optimizer, Counted)
    taken, before = optimizer.taken, deepcopy(model.state_dict())
    for step in optimizer._maker.ordinary._steps:  # type: ignore[union-attr]
        step._pack.known_metric(0.1, step.joined.exponent(optimizer.param_groups)).product.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="the step of"):
        optimizer.step()
    same(model.state_dict(), before)
    assert optimizer.taken == taken
    optimizer.step()  # the plan is made anew
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("loss", "error"), [(torch.tensor(torch.nan), NonFiniteError), ("1", ProblemError),
                                             (torch.ones(2), ProblemError)])
def test_losses_that_are_none(loss: Any, error: type[Exception]) -> None:
    model, optimizer = run(Counted)
    before = deepcopy(model.state_dict()), deepcopy(optimizer.state_dict())
    with pytest.raises(error):
        optimizer.step(loss=loss)
    same(model.state_dict(), before[0])
    same(optimizer.state_dict(), before[1])


@pytest.mark.parametrize("name", ["lr", "weight_decay", "adamw_lr"])
def test_rates_that_are_none(name: str) -> None:
    _, optimizer = run(Counted)
    optimizer.param_groups[0][name] = -1.0
    with pytest.raises(ProblemError, match=name):
        optimizer.step()


def test_averages_in_the_model() -> None:
    _, optimizer = run(Counted)
    optimizer.eval()
    with pytest.raises(ProblemError, match="holds the averages"):
        optimizer.step()


def test_a_module_that_is_exchanged_is_seen() -> None:
    with pytest.raises(ProblemError, match="not the model's any more"):
        run(Counted, plain, exchanged, steps=45)


def test_autocast_changes_nothing() -> None:
    model, optimizer = run(Counted)
    other, expected = run(Counted)
    assert isinstance(optimizer, Counted)
    taken = optimizer.taken
    with torch.autocast("cpu", torch.bfloat16):
        optimizer.step()
    expected.step()
    assert optimizer.taken == taken
    same(model.state_dict(), other.state_dict())


def test_hooks_and_closures_are_called() -> None:
    model, optimizer = run(Counted)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    assert optimizer.step() is None
    assert seen == ["before", "after"]

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss: Tensor = model(torch.ones(2, 6)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0


def test_a_copy_goes_on() -> None:
    model, optimizer = run(Counted)
    other, copy = deepcopy((model, optimizer))
    for one, own in ((model, optimizer), (other, copy)):
        torch.manual_seed(1)
        for _ in range(30):
            own.zero_grad()
            loss = one(torch.randn(7, 6)).square().mean()
            loss.backward()
            own.step(loss=loss)
    for value, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("late", [range(21, 22), range(33, 36), range(1), range(50), range(0, 60, 7)])
@pytest.mark.parametrize("make", [plain, wide])
def test_steps_in_inference_mode_are_as_others(make: Callable[[], nn.Module], late: range) -> None:
    """Nothing that is kept is of that mode."""
    found = []
    for modes in (range(0), late):
        torch.manual_seed(0)
        model = make().double()
        optimizer = EMSA(model)
        for n in range(60):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 6, dtype=torch.float64)).square().mean()
            loss.backward()
            with torch.inference_mode(n in modes):
                optimizer.step(loss=loss.detach())
        found.append(model)
    for one, other in zip(*(model.parameters() for model in found), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["emsa", "averaged"])
def test_averages_are_shown_in_inference_mode(kind: str) -> None:
    """As frameworks evaluate; weights that have been loaded since begin new averages."""
    torch.manual_seed(0)
    model = plain()
    optimizer: Any = EMSA(model) if kind == "emsa" else Averaged(torch.optim.AdamW(model.parameters()))
    for n in range(40):
        optimizer.zero_grad()
        model(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()
        if n % 9 == 4:
            model.load_state_dict({name: 0.9 * value for name, value in model.state_dict().items()})
            with torch.inference_mode():
                optimizer.eval()
                optimizer.train()
    assert all(one.isfinite().all() and not one.is_inference() for state in optimizer.state.values()
               for one in state.values() if isinstance(one, Tensor))


def test_a_refused_step_tells_groups_nothing() -> None:
    """Nor how often states are to be probed."""
    torch.manual_seed(0)
    model = wide()
    optimizer = EMSA(model)
    for n in range(1, 81):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 6)).square().mean()
        loss.backward()
        optimizer.param_groups[0]["probe_stretch"] = 1  # so that the 80th probes
        if n < 80:
            optimizer.step(loss=loss)
    assert optimizer._stages.capture.is_on
    optimizer.state[next(model.parameters())]["square"].fill_(torch.nan)
    before = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    with pytest.raises(NonFiniteError, match="nothing has been changed"):
        optimizer.step(loss=loss)
    assert {name: optimizer.param_groups[0][name] for name in before} == before


def test_a_parameter_in_another_group_moves_the_same_in_every_step() -> None:
    def swapped(n: int, _: nn.Module, optimizer: EMSA) -> None:
        if n == 20:
            first, second = optimizer.param_groups
            second["params"].insert(0, first["params"].pop())

    both(20, groups=one_decays, between=swapped)


@pytest.mark.filterwarnings("ignore:EMSA")
def test_a_gradient_in_the_memory_of_its_parameter() -> None:
    def aliased(n: int, model: nn.Module, _: EMSA) -> None:
        for one in model.parameters():
            one.grad = one.data

    both(0, Scaled, weight_decay=0.1, between=aliased)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 16, 17), (1, 5, 40), (2, 1, 3)])
def test_momentum_and_controls_in_one_pass(shape: tuple[int, int, int], dtype: Any) -> None:
    numbers, (groups, outputs, columns) = np.random.default_rng(0), shape
    velocity, change = (numbers.standard_normal(shape).astype(dtype) for _ in range(2))
    weights = numbers.standard_normal((groups, outputs, columns - 1)).astype(dtype)
    biases, kept = numbers.standard_normal((groups, outputs)).astype(dtype), np.array([0.8], dtype)
    places = np.array([row for k in range(groups) for row in (
        (0, k * outputs * (columns - 1), k, outputs, 0, columns - 1), (1, k * outputs, k, outputs,
                                                                       columns - 1, 1))])

    def found(step: Callable[..., None]) -> list[np.ndarray]:
        own = [one.copy() for one in (velocity, change, weights, biases)]
        step(np.array([one.ctypes.data for one in own[2:]]), own[0], own[1])
        return [own[0], *own[2:]]

    def one_by_one(addresses: np.ndarray, own: np.ndarray, step: np.ndarray) -> None:
        nesterov(own, step, kept)
        placed(addresses, places, step, -0.013)

    def at_once(addresses: np.ndarray, own: np.ndarray, step: np.ndarray) -> None:
        nesterov_placed(addresses, places, own, step, kept, -0.013)

    for one, other in zip(found(one_by_one), found(at_once), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 16, 17), (1, 5, 40), (2, 1, 3), (1, 4, 2)])
def test_gradients_are_gathered_and_centred_in_one_pass(shape: tuple[int, int, int], dtype: Any) -> None:
    """Of matrices that are smaller than the pack too."""
    numbers, (groups, outputs, columns) = np.random.default_rng(0), shape
    less = max(columns - 2, 1)
    weights = numbers.standard_normal((groups, outputs, less)).astype(dtype)
    biases = numbers.standard_normal((groups, outputs)).astype(dtype)
    mean = np.zeros((groups, 1, columns), dtype)
    mean[..., :less] = numbers.standard_normal((groups, 1, less))
    places = np.array([row for k in range(groups) for row in (
        (0, k * outputs * less, k, outputs, 0, less), (1, k * outputs, k, outputs, columns - 1, 1))])
    addresses = np.array([weights.ctypes.data, biases.ctypes.data])
    right, own = np.zeros(shape, dtype), np.zeros(shape[:2])
    begun(addresses, places, mean, right, own)
    expected, centre, length = np.zeros(shape, dtype), np.zeros(shape, dtype), np.zeros(shape[:2])
    gathered(addresses, places, expected)
    centred(expected, mean, centre, length)
    assert np.array_equal(right, centre)
    np.testing.assert_allclose(own, length, rtol=1e-12)
