"""Bad batches change nothing, bad settings are refused, and steps that raise the loss can be taken back."""

import copy
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from optim_builders import emsa, images, loss_of, mlp, net, parameters, train, vectors, without_checked_types
from torch import Tensor, nn

from pontryagin.optim import EMSA, Acceptance, Bound, Metric
from pontryagin.problem import NonFiniteError, ProblemError


def snapshot(model: nn.Module, optimizer: EMSA) -> dict[str, Any]:
    return copy.deepcopy({"parameters": list(model.parameters()), "optimizer": optimizer.state_dict()})


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_batches_that_are_not_finite_change_nothing(value: float, steps: int) -> None:
    model, plain = mlp(), mlp()
    optimizer, reference = EMSA(model), EMSA(plain)
    train(model, optimizer, steps, vectors)
    train(plain, reference, steps, vectors)
    before = snapshot(model, optimizer)
    x, y = vectors(seed=77)
    x[3, 2] = value
    optimizer.zero_grad()
    loss_of(model, x, y).backward()
    with pytest.raises(NonFiniteError, match=r"gradient of 0\.weight"):
        optimizer.step()
    assert same(snapshot(model, optimizer), before)
    train(model, optimizer, 3, vectors, first=steps)
    train(plain, reference, 3, vectors, first=steps)
    assert torch.equal(parameters(model), parameters(plain))


def test_one_gradient_that_is_not_finite() -> None:
    model = net()
    optimizer = EMSA(model)
    train(model, optimizer, 1, images)
    before = snapshot(model, optimizer)
    loss_of(model, *images()).backward()
    model.head[1].bias.grad[2] = -torch.inf
    with pytest.raises(NonFiniteError, match=r"head\.1\.bias.*nothing has been changed"):
        optimizer.step()
    assert same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("value", [1e-38, 1e-30, 1e15, 1e30, 3e38])
def test_small_and_large_gradients(value: float) -> None:
    """As long as they are finite they are gradients as any others, though their squares are not."""
    model = mlp(torch.float32)
    optimizer = EMSA(model)
    loss_of(model, *vectors(dtype=torch.float32)).backward()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    before = parameters(model)
    optimizer.step()
    train(model, optimizer, 3, vectors, dtype=torch.float32)
    assert parameters(model).isfinite().all()
    assert not torch.equal(parameters(model), before)


@pytest.mark.parametrize("kind", ["zero", "constant", "repeated", "one row", "dead output", "tiny", "large"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_training_on_degenerate_inputs_stays_finite(kind: str, wide: bool, damping: float) -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.LayerNorm(6), nn.Linear(6, 3))
    optimizer = EMSA(model, metric=Metric(damping=damping, metric_rank=1 if wide else 32))
    x, y = vectors(12, torch.float32)
    if kind == "dead output":
        with torch.no_grad():
            model[0].bias[:3] = -100  # type: ignore[index, union-attr]
    x = {"zero": 0 * x, "constant": torch.ones_like(x), "repeated": x[:2].repeat(6, 1), "tiny": 1e-12 * x,
         "large": 1e6 * x}.get(kind, x)
    if kind == "one row":
        x, y = x[:1], y[:1]
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    limit = 110 if kind == "dead output" else 30
    assert all(parameter.isfinite().all() and parameter.abs().max() < limit
               for parameter in model.parameters())


@pytest.mark.parametrize("acceptance", [None, Bound(), Acceptance()])
def test_closures_with_a_loss_that_is_not_finite(acceptance: Acceptance | Bound | None) -> None:
    model, plain = mlp(), mlp()
    optimizer, reference = EMSA(model, acceptance=acceptance), EMSA(plain, acceptance=acceptance)

    def closure_of(one: nn.Module, method: EMSA, factor: float) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            method.zero_grad()
            loss = factor * loss_of(one, *vectors())
            loss.backward()
            return loss

        return closure

    before = snapshot(model, optimizer)
    with pytest.raises(NonFiniteError, match="loss of the closure is"):
        optimizer.step(closure_of(model, optimizer, torch.nan))
    assert same(snapshot(model, optimizer), before)
    for one, method in ((model, optimizer), (plain, reference)):
        method.step(closure_of(one, method, 1.0))
    assert torch.equal(parameters(model), parameters(plain))


def accepted(lr: float, steps: int, **options: Any) -> tuple[list[float], EMSA, nn.Module]:
    model = mlp()
    optimizer = EMSA(model, lr=lr, acceptance=Acceptance(**options))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, *vectors())
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(steps)]
    return [*losses, loss_of(model, *vectors()).item()], optimizer, model


@pytest.mark.parametrize("lr", [0.03, 20.0, 1000.0])
def test_acceptance_never_raises_the_loss(lr: float) -> None:
    losses, optimizer, _ = accepted(lr, 12)
    assert all(after <= before for before, after in pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]
    step_scale = optimizer.param_groups[0]["step_scale"]
    assert step_scale == 1 if lr < 1 else step_scale < 1


def test_acceptance_gives_up_and_leaves_the_parameters_bitwise() -> None:
    start = parameters(mlp())
    losses, optimizer, model = accepted(1e6, 1, attempts=2, grow=1.5)
    assert torch.equal(parameters(model), start)
    assert losses[0] == losses[1]
    assert optimizer.param_groups[0]["step_scale"] == pytest.approx(1 / 1.5**2)


def test_trials_of_acceptance_leave_the_moments_alone() -> None:
    """Moments are of the batches that steps start from: the same as without trials while every step is
    accepted."""
    losses, optimizer, model = accepted(0.01, 6)
    plain = mlp()
    reference = EMSA(plain, lr=0.01)
    assert losses[:6] == train(plain, reference, 6, lambda seed: vectors())
    assert torch.equal(optimizer.state[model[0].weight]["moment"], reference.state[plain[0].weight]["moment"])


def test_acceptance_needs_a_loss() -> None:
    model = mlp()
    optimizer = EMSA(model, acceptance=Acceptance())
    loss_of(model, *vectors()).backward()
    with pytest.raises(ProblemError, match="needs a closure"):
        optimizer.step()
    with pytest.raises(ProblemError, match="returned None"):
        optimizer.step(lambda: None)


@pytest.mark.parametrize("options", [{"grow": 1.0}, {"shrink": 0.0}, {"shrink": 1.1}, {"attempts": 0}])
def test_refused_acceptance(options: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match="Acceptance: expected"):
        Acceptance(**options)


@pytest.mark.parametrize(("options", "message"), [
    ({"lr": -0.1}, "EMSA lr: expected a number in"), ({"lr": float("nan")}, "lr"),
    ({"exponent": 1.5}, "exponent"), ({"damping": -1.0}, "damping"), ({"momentum": 1.0}, "momentum"),
    ({"rho_decay": 1.0}, "rho_decay"), ({"weight_decay": -1.0}, "weight_decay"),
    ({"adamw_lr": -1.0}, "adamw_lr"), ({"metric_rank": 0}, "metric_rank >= 1"),
    ({"moment_rows": 4}, "moment_rows >= 8 or None"), ({"refresh_budget": 0.0}, "refresh_budget > 0"),
])
def test_refused_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        emsa(mlp(), **options)


def test_refused_groups() -> None:
    model = mlp()
    with pytest.raises(ProblemError, match="EMSA lr"):
        EMSA(model, [{"params": model[0].parameters(), "lr": -1.0}])
    with pytest.raises(ProblemError, match=r"shape \(7, 5\) that is not one of the model's"):
        EMSA(model, mlp().parameters())
    optimizer = EMSA(model, model[2].parameters())
    with pytest.raises(ProblemError, match="EMSA exponent"):
        optimizer.add_param_group({"params": model[0].parameters(), "exponent": 2.0})
    with pytest.raises(ProblemError, match="EMSA damping: expected a number, found True"):
        optimizer.add_param_group({"params": model[0].parameters(), "damping": True})
    assert len(optimizer.param_groups) == 1


def test_refused_models() -> None:
    with without_checked_types(), pytest.raises(ProblemError, match="expects a torch module, found list"):
        EMSA(list(mlp().parameters()))  # type: ignore[arg-type]
    with pytest.raises(ProblemError, match="lazy parameters"):
        EMSA(nn.LazyLinear(3))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.scale, self.shift = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x) + self.shift


def test_parameters_outside_stages_give_one_warning() -> None:
    model = Scaled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = EMSA(model)
        train(model, optimizer, 3, vectors, dtype=torch.float32)
    assert [str(one.message) for one in caught] == [
        "EMSA trains 25.0% of the parameters by AdamW: they belong to no affine stage.\n"
        "Their classes, and the share of each: Scaled 0.25.\n"
        "Trained by AdamW: scale, shift"]
    assert {row.name: row.maximized for row in optimizer.stages().rows}["scale"] == "AdamW"
    message = "strict: these parameters belong to no affine stage: scale, shift"
    with pytest.raises(ProblemError, match=message):
        EMSA(Scaled(), strict=True)
    quiet = Scaled()
    EMSA(quiet, quiet.linear.parameters(), strict=True)
    EMSA(mlp(), strict=True)


USER = """
import torch
from torch import nn
from pontryagin.optim import EMSA

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.scale = nn.Linear(5, 7), nn.Linear(7, 3), nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.scale * nn.functional.linear(self.first(x).tanh(), self.second.weight)

model = Functional()
optimizer = EMSA(model)
model(torch.randn(8, 5)).square().mean().backward()
optimizer.step()
"""


def test_warnings_are_of_the_line_that_called(tmp_path: Path) -> None:
    """The constructor and step, in a process without the tests' checks of types, which stand in between."""
    script = tmp_path / "user.py"
    script.write_text(USER)
    done = subprocess.run([sys.executable, "-W", "always", str(script)], capture_output=True, text=True,
                          check=False)
    assert not done.returncode, done.stderr
    lines = [USER.splitlines()[int(line) - 1]
             for line in re.findall(re.escape(str(script)) + r":(\d+): UserWarning: EMSA", done.stderr)]
    assert lines == ["optimizer = EMSA(model)", "optimizer.step()"], done.stderr


def test_late_parameters_outside_stages_are_named() -> None:
    model = Scaled()
    optimizer = EMSA(model, model.linear.parameters())
    with pytest.warns(UserWarning, match=r"by AdamW: scale$"):
        optimizer.add_param_group({"params": [model.scale]})
