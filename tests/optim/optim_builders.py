"""Small models, batches and training loops for the tests of the torch optimizer."""

import os
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import jaxtyping
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import builders
from pontryagin.optim import EMSA, Constraint, Metric
from pontryagin.trajectory.capture import Capture, capture
from pontryagin.trajectory.captured_stage import CapturedStage

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


assert_close = partial(builders.assert_close, least=1e-5)


@contextmanager
def said(kind: type[Warning] = Warning) -> Iterator[list[str]]:
    """The texts of the warnings of a kind that are given inside, known at the end."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts.extend(str(each.message) for each in caught if issubclass(each.category, kind))


def by_two_processes(program: str, folder: Path) -> list[Any]:
    """What this program, started by two processes with their rank and a folder, has saved into it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([sys.executable, "-W", "ignore", program, str(rank), str(folder)],
                                env=environment, stderr=subprocess.PIPE, text=True) for rank in range(2)]
    try:
        errors = [process.communicate(timeout=600)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), errors
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


class Net(nn.Module):
    """A convolutional net with every kind of stage in use: convolution, batch norm, linear, layer norm."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, bias=bias), nn.BatchNorm2d(4),
                                      nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.Linear(36, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Attention(nn.Module):
    """A transformer with one layer on tokens."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.table(tokens)).mean(1))


def net(dtype: torch.dtype = torch.float64, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().to(dtype)


def mlp(dtype: torch.dtype = torch.float64, seed: int = 0, outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, outputs)).to(dtype)


def images(count: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, 1, 7, 7, generator=generator, dtype=torch.float64).to(dtype),
            torch.randint(0, 3, (count,), generator=generator))


def vectors(count: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, 5, generator=generator, dtype=torch.float64).to(dtype),
            torch.randint(0, 3, (count,), generator=generator))


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int,
          batch: Callable[..., tuple[Tensor, Tensor]], first: int = 0, told: bool = False,
          **options: torch.dtype) -> list[float]:
    """Steps on batches numbered from `first`; the losses before each step. told: to the optimizer too."""
    losses = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss = loss_of(model, *batch(seed=step, **options))
        loss.backward()
        optimizer.step(**({"loss": loss} if told else {}))
        losses.append(loss.item())
    return losses


def checked(model: nn.Module) -> list[CapturedStage]:
    """The stages of a model, ready to sum u x^T."""
    stages, hooks = capture(model, None)
    _HOOKS.append(hooks)  # they go with the object
    for stage in stages:
        stage.gradient_check = []
    return stages


_HOOKS: deque[Capture] = deque(maxlen=4)


def summed(stage: CapturedStage) -> tuple[Tensor, Tensor]:
    """Sum of u x^T, shaped as the weight, and of u, as the bias."""
    assert stage.gradient_check
    products, costates = zip(*stage.gradient_check, strict=True)
    return stage.map.shaped(sum(products[1:], products[0])), sum(costates[1:], costates[0]).flatten()


def check_gradients(stages: list[CapturedStage], tolerance: float = 1e-10) -> None:
    """Sum of u x^T is the gradient of the weight, and sum of u that of the bias."""
    for stage in stages:
        if stage.map.outputs is None:
            continue
        product, costate = summed(stage)
        assert stage.weight.grad is not None, stage.name
        assert_close(product, stage.weight.grad, tolerance)
        if stage.bias is not None:
            assert stage.bias.grad is not None
            assert_close(costate, stage.bias.grad.flatten(), tolerance)


def parameters(model: nn.Module) -> Tensor:
    """All parameters and buffers as one vector of float64."""
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()])


def emsa(model: nn.Module, params: Iterable[Any] | None = None, **options: Any) -> EMSA:
    """EMSA with the settings of Metric and Constraint given flat among its own; the rest as it comes."""
    made: dict[str, Any] = {}
    for name, kind in (("metric", Metric), ("constraint", Constraint)):
        if flat := {each.name: options.pop(each.name) for each in fields(kind) if each.name in options}:
            made[name] = kind(**flat)
    return EMSA(model, params, **made, **options)


@contextmanager
def without_checked_types() -> Iterator[None]:
    """As users have the library: wrong types meet its own refusals, not the checks of conftest."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def emsa_of_all_rows(model: nn.Module, params: Iterable[Any] | None = None, **options: Any) -> EMSA:
    """EMSA whose moments are of all rows, so that batches may be split."""
    return emsa(model, params, **{"moment_rows": None, **options})
