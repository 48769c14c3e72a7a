"""Steps that read gradients and write controls by their addresses are those of torch's calls."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from optim_deeds import DEEDS
from torch import Tensor, nn

from pontryagin.errors import NonFiniteError
from pontryagin.optim import EMSA, compiled, step
from pontryagin.optim.adamw_step import AdamWStep
from pontryagin.optim.addresses import Addresses
from pontryagin.optim.compiled import is_own_memory
from pontryagin.optim.promise import PARTS, Asked
from pontryagin.optim.share import Share

pytestmark = pytest.mark.skipif(compiled.compiler() is None, reason="numba is not installed")


class Scaled(nn.Module):
    """With parameters that belong to no stage."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))
        self.gain, self.matrix = nn.Parameter(torch.ones(3)), nn.Parameter(0.1 * torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out * self.gain + out @ self.matrix


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 9, bias=False), nn.Tanh(), nn.Linear(9, 3))


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 3, padding=1, groups=2), nn.Tanh(),
                         nn.ConvTranspose1d(4, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain, "scaled": Scaled, "convolutions": convolutions}


def run(make: Callable[[], nn.Module], between: Callable[[int, nn.Module, EMSA], None] | None = None,
        steps: int = 60, size: float = 1.0, rows: int = 5, **options: Any) -> tuple[nn.Module, EMSA]:
    torch.manual_seed(0)
    model = make().double()
    groups = options.pop("groups", None)
    optimizer = EMSA(model, None if groups is None else groups(model), **options)
    for n in range(steps):
        x = torch.randn(rows, 6, dtype=torch.float64)
        optimizer.zero_grad()
        loss = size * (model(x) - x[:, :3]).square().mean()
        loss.backward()
        if between is not None:
            between(n, model, optimizer)
        optimizer.step(loss=loss)
    return model, optimizer


def without(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step, "addressed", lambda *_: None)


def both(patch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> None:
    """The same with and without addresses, and they are used."""
    looks: list[bool] = []
    seen = Addresses.look

    def look(self: Addresses, *given: Any) -> bool:
        looks.append(seen(self, *given))
        return looks[-1]

    with patch.context() as counted:
        counted.setattr(Addresses, "look", look)
        model, optimizer = run(*arguments, **options)
    with patch.context() as changed:
        without(changed)
        other, before = run(*arguments, **options)
    assert sum(looks) > len(looks) / 3
    for one, two in ((model, other), (shown(model, optimizer), shown(other, before))):
        for (name, value), expected in zip(one.named_parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-11, msg=name)


def shown(model: nn.Module, optimizer: EMSA) -> nn.Module:
    optimizer.eval()
    found = deepcopy(model)
    optimizer.train()
    return found


@pytest.mark.filterwarnings("ignore:EMSA")
@pytest.mark.parametrize("rows", [5, 40])
@pytest.mark.parametrize("name", MODELS)
def test_trajectories(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    both(monkeypatch, MODELS[name], rows=rows)


@pytest.mark.filterwarnings("ignore:EMSA")
@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"averaging": None}, {"acceptance": None},
                                     {"momentum": 0.0}, {"lr": 0.0}])
def test_options(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    both(monkeypatch, Scaled, **options)


@pytest.mark.filterwarnings("ignore:EMSA")
def test_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(model: nn.Module) -> list[dict[str, Any]]:
        own = [p for p in model.parameters() if p.ndim == 1]
        return [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
                {"params": own, "lr": 0.01, "averaging": 4.0}]

    both(monkeypatch, Scaled, groups=groups)


@pytest.mark.filterwarnings("ignore:EMSA")
@pytest.mark.parametrize("between", DEEDS)
def test_what_others_do(between: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    both(monkeypatch, Scaled, between)


@pytest.mark.filterwarnings("ignore:EMSA")
def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    model, optimizer = run(Scaled)
    before = deepcopy(model.state_dict()), deepcopy(optimizer.state_dict())
    for value in (np.nan, np.inf):
        for parameter in model.parameters():
            assert parameter.grad is not None
            kept = parameter.grad.clone()
            parameter.grad.view(-1)[0] = value
            with pytest.raises(NonFiniteError):
                optimizer.step()
            parameter.grad.copy_(kept)
    torch.testing.assert_close(model.state_dict(), before[0], rtol=0, atol=0)
    torch.testing.assert_close(optimizer.state_dict()["state"], before[1]["state"], rtol=0, atol=0)


def test_autograd_knows_that_controls_have_been_written() -> None:
    model, optimizer = run(plain)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    optimizer.zero_grad()
    model(x).square().mean().backward()
    late = model(x).square().mean()
    versions = [parameter._version for parameter in model.parameters()]
    optimizer.step()
    assert all(parameter._version > version
               for parameter, version in zip(model.parameters(), versions, strict=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        late.backward()


def test_what_was_cut_off_is_not_written() -> None:
    """Rows that were pruned in place, gradients of one flat buffer."""
    model, optimizer = run(plain)
    parameters = list(model.parameters())
    flat = torch.ones(sum(parameter.numel() for parameter in parameters), dtype=torch.float64)
    for parameter, part in zip(parameters, flat.split([one.numel() for one in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    whole = parameters[0].data
    before = whole.clone()
    parameters[0].grad = None
    parameters[0].data = whole[:4]
    parameters[0].grad = flat[:24].view(4, 6)
    with pytest.raises(RuntimeError):
        optimizer.step()
    assert torch.equal(whole[4:], before[4:])


def test_a_probe_of_rows_with_the_negative_bit() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    optimizer = EMSA(model)
    for _ in range(4):
        x = torch.randn(4, 3, dtype=torch.complex64).conj().imag
        optimizer.zero_grad()
        model(torch._neg_view(x.neg().contiguous())).square().mean().backward()
        optimizer.step()
        assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert optimizer.param_groups[0]["steps"] == 4


def test_own_memory() -> None:
    value = torch.randn(4, 4)
    assert is_own_memory(value)
    assert is_own_memory(value[1:3])
    for other in (value.mT, value[:, :2], value.to_sparse(), torch.ones(1).expand(3), nn.Parameter(value),
                  torch.randn(1, dtype=torch.complex64).conj().imag):
        assert not is_own_memory(other)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_the_loops_of_adamw(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3, 4, dtype=kind)), nn.Parameter(torch.randn(5, dtype=kind))]
    torch_own = deepcopy(parameters)
    group = {"params": parameters, "lr": 0.1, "adamw_lr": 0.3, "weight_decay": 0.0}
    own, states = AdamWStep(parameters, ["a", "b"], [0, 0]), {one: {} for one in parameters}
    reference = torch.optim.Adam(torch_own, lr=0.03, betas=(0.9, 0.99), eps=1e-8)
    addresses = None
    for n in range(12):
        for one, other in zip(parameters, torch_own, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        if n == 1:
            addresses = Addresses(parameters, states)
            own.bind(addresses)
        assert addresses is None or addresses.look([group], states)
        largest = {id(one): float(one.grad.abs().max()) for one in parameters if one.grad is not None}
        update = own.propose([group], states, largest, Asked(promised=True), Share())
        assert (update.new is None) == (n > 0)
        promise = -sum(float((one.grad * change).sum()) for one, change in zip(
            parameters, update.changes, strict=True) if one.grad is not None)
        assert update.promise is not None
        assert sum(map(float, update.promise[::PARTS])) == pytest.approx(0.03 * promise, rel=1e-5)
        with torch.no_grad():
            for move in own.take(update, [group], states):
                move.apply(1.0)
        reference.step()
        if addresses is not None:
            addresses.note()
    for one, other in zip(parameters, torch_own, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert all(float(state["updates"]) == 12 for state in states.values())
