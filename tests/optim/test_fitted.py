"""What has been fitted stays fitted at a constant rate: gradients that are rounding or vanish are no reason
to run away."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from optim_kinds import controls, few
from torch import Tensor, nn

from pontryagin.optim import EMSA

pytestmark = pytest.mark.filterwarnings("ignore:EMSA trains")
FITTED, STAYS = 1e-6, 1e-3
Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """A classifier and all of its data, from a seed. longest: steps to the loss that counts as fitted."""

    make: Callable[[], nn.Module]
    data: Callable[[torch.Generator], Data]
    longest: int = 3000


def teacher(inputs: int, classes: int, rows: int, margin: float = 0.0) -> Callable[[torch.Generator], Data]:
    """Of a linear teacher, without what lies within a margin of its boundaries."""

    def data(generator: torch.Generator) -> Data:
        x = torch.randn(8 * rows, inputs, generator=generator)
        map_ = torch.randn(inputs, classes, generator=generator)
        best = (x @ map_).topk(2, 1)
        kept = (best.values[:, 0] - best.values[:, 1] > margin).nonzero().flatten()[:rows]
        return x[kept], best.indices[kept, 0]

    return data


def moons(generator: torch.Generator) -> Data:
    angle = math.pi * torch.rand(40, generator=generator)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    x = torch.cat([upper, lower]) + 0.03 * torch.randn(80, 2, generator=generator)
    return x, torch.arange(80) // 40


def at_random(*shape: int, classes: int) -> Callable[[torch.Generator], Data]:
    """Labels that mean nothing: learned by heart."""

    def data(generator: torch.Generator) -> Data:
        x = torch.randn(*shape, generator=generator)
        return x, torch.randint(0, classes, (shape[0],), generator=generator)

    return data


TASKS = {
    "6-32-3": Task(lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3)), teacher(6, 3, 64)),
    "moons": Task(lambda: nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)), moons),
    "10-64-64-4": Task(lambda: nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                                             nn.Linear(64, 4)),
                       at_random(48, 10, classes=4)),
    "logistic": Task(lambda: nn.Linear(8, 3), teacher(8, 3, 40, 1.0)),
    "images": Task(lambda: nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 2),
                                         nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)),
                   at_random(24, 1, 8, 8, classes=4)),
    "root mean squares": Task(lambda: nn.Sequential(nn.RMSNorm(8), nn.Linear(8, 32), nn.RMSNorm(32),
                                                    nn.SiLU(), nn.Linear(32, 4)),
                              at_random(24, 8, classes=4)),
    "attention": Task(lambda: nn.Sequential(
        nn.Unflatten(1, (6, 8)), nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, batch_first=True),
        nn.Flatten(), nn.Linear(48, 4)), at_random(16, 48, classes=4)),
}


def check(task: Task, seed: int, further: int, dtype: torch.dtype = torch.float32) -> None:
    """For so many steps after the first one below what counts as fitted."""
    torch.manual_seed(seed)
    model = task.make().to(dtype)
    x, y = task.data(torch.Generator().manual_seed(1000 + seed))
    x, optimizer, worst, left = x.to(dtype), EMSA(model), 0.0, None
    for _ in range(task.longest + further):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        value = loss.item()
        assert math.isfinite(value)
        if left is None and value < FITTED:
            left = further
        if left is not None:
            worst, left = max(worst, value), left - 1
            if left < 0:
                break
        loss.backward()
        optimizer.step()
    assert left is not None, "never fitted"
    assert worst < STAYS
    assert controls(model).isfinite().all()
    optimizer.eval()
    assert F.cross_entropy(model(x), y) < 10 * STAYS, "the averages"


@pytest.mark.parametrize("name", few(TASKS, "6-32-3", "logistic"))
def test_what_is_fitted_stays(name: str) -> None:
    check(TASKS[name], 1, 1500)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", [*TASKS])
def test_what_is_fitted_stays_for_long(name: str, seed: int) -> None:
    check(TASKS[name], seed, 5000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["6-32-3", "moons"])
def test_what_is_fitted_stays_in_double_precision(name: str) -> None:
    check(TASKS[name], 0, 5000, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("batch", [8, 16])
def test_what_is_fitted_stays_over_batches(batch: int, seed: int) -> None:
    """Of a few rows each, none of which has anything to say any more."""
    torch.manual_seed(seed)
    model = TASKS["6-32-3"].make()
    x, y = teacher(6, 3, 64, 0.5)(torch.Generator().manual_seed(1000 + seed))
    optimizer, worst, fitted = EMSA(model), 0.0, False
    for step in range(6000):
        rows = torch.arange(step * batch, (step + 1) * batch) % len(x)
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        with torch.no_grad():
            value = F.cross_entropy(model(x), y).item()
        fitted |= value < FITTED
        worst = max(worst, value) if fitted else 0.0
    assert fitted
    assert worst < STAYS


# --- regression ---------------------------------------------------------------------------------------------

FITS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 3), "one output": lambda: nn.Linear(6, 1),
    "no bias": lambda: nn.Linear(6, 3, bias=False),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 3, 2), nn.Flatten()),
}


def regression(make: Callable[[], nn.Module], rows: int, dtype: torch.dtype
               ) -> tuple[nn.Module, Tensor, Tensor]:
    """A model, and targets that one of its kind gives."""
    torch.manual_seed(1)
    goal = make().to(dtype)
    torch.manual_seed(0)
    model, generator = make().to(dtype), torch.Generator().manual_seed(2)
    x = torch.randn(rows, 6, generator=generator, dtype=torch.float64).to(dtype)
    return model, x, goal(x).detach() * 3


def squares(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """The loss before a step."""
    optimizer.zero_grad()
    loss = (model(x) - y).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


LATER = [pytest.param(name, torch.float32, 1e-10, marks=pytest.mark.slow) for name in FITS]
LATER += [pytest.param(name, torch.float64, 1e-12, marks=pytest.mark.slow)
          for name in FITS if name != "linear"]


@pytest.mark.parametrize("rows", [8, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "dtype", "floor"), [("linear", torch.float64, 1e-12), *LATER])
def test_a_regression_that_is_fitted_exactly_stays_so(name: str, dtype: torch.dtype, floor: float,
                                                      rows: int) -> None:
    """By a rate that falls; then 3,000 steps at the default rate again."""
    model, x, y = regression(FITS[name], rows, dtype)
    optimizer = EMSA(model)
    first = squares(model, optimizer, x, y)
    for step in range(1200):
        optimizer.param_groups[0]["lr"] = 0.03 * min(1.0, 10 ** (-(step - 300) / 120))
        last = squares(model, optimizer, x, y)
        if last < floor * first:
            break
    assert last < floor * first, "never fitted"
    optimizer.param_groups[0]["lr"] = 0.03
    worst = max(squares(model, optimizer, x, y) for _ in range(3000))
    assert worst < 0.01 * first


@pytest.mark.parametrize("rows", [8, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_start_at_the_solution_stays_near_it(dtype: torch.dtype, rows: int) -> None:
    """Targets are the outputs themselves, but for their rounding: from the first on all gradients are noise
    of 1e-8 or 1e-16."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    y = (model(x) * (1 + torch.finfo(dtype).eps)).detach()
    optimizer, scale = EMSA(model), y.square().mean().item()
    worst = max(squares(model, optimizer, x, y) for _ in range(300))
    assert worst < 0.1 * scale


# --- depth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize("depth", few([15, 20, 25], 25))
def test_deep_sigmoid_networks_stay_finite(depth: int, rows: int) -> None:
    """At torch's initialization the first layers' gradients vanish, in single precision down to its smallest
    numbers."""
    torch.manual_seed(0)
    hidden = [each for _ in range(depth) for each in (nn.Linear(16, 16), nn.Sigmoid())]
    model = nn.Sequential(*hidden, nn.Linear(16, 4))
    optimizer, generator = EMSA(model), torch.Generator().manual_seed(1)
    for _ in range(30):
        x, y = torch.randn(rows, 16, generator=generator), torch.randint(0, 4, (rows,), generator=generator)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        assert loss.isfinite()
        loss.backward()
        optimizer.step()
        assert controls(model).isfinite().all()
