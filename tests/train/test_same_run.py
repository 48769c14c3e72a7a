"""A run goes on with what it was begun with, or not at all: what may have become another in the meantime, and
what only looks so."""

import itertools
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pontryagin.run import checkpoint
from pontryagin.run.callbacks import ProgressDisplay
from pontryagin.run.checkpoint import CheckpointError
from pontryagin.run.errors import ExperimentError
from pontryagin.run.evaluation import Point
from pontryagin.run.parts import task_from
from pontryagin.run.predict import Prediction, predict
from pontryagin.run.race import Run
from pontryagin.run.settings import RunSettings
from pontryagin.run.training import Outcome, run_training


class Straight(torch.autograd.Function):
    """sign(x), with a gradient as if it were `slope` times x."""

    @staticmethod
    def forward(context: Any, x: Tensor, slope: float) -> Tensor:
        context.slope = slope
        return x.sign()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return context.slope * gradients[0], None


class Net(nn.Module):
    """Made of what may change: the keywords of `theirs`."""

    def __init__(self, has: SimpleNamespace) -> None:
        super().__init__()
        self.has, self.first, self.drop = has, nn.Linear(4, 8), nn.Dropout(has.dropout)
        self.norm, self.last = nn.BatchNorm1d(8, momentum=has.momentum), nn.Linear(8, 3)
        if has.drawn:
            nn.init.uniform_(self.last.weight, -1, 1, generator=torch.Generator().manual_seed(has.drawn()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.has.activation(self.norm(self.first(x.float())))
        x = x + Straight.apply(x, self.has.slope)
        return self.last(self.drop(x)) * (1.0 if self.training else self.has.at_evaluation)


class Files(Dataset[Any]):
    """Samples on disk, with noise of a generator."""

    def __init__(self, folder: Path, noise: Callable[[], float]) -> None:
        self.folder, self.noise = folder, noise

    def __len__(self) -> int:
        return 60

    def __getitem__(self, row: int) -> Any:
        return np.load(self.folder / f"{row}.npy") + np.float32(self.noise()), row % 3


def theirs(folder: Path, **changed: Any) -> SimpleNamespace:
    """A user's module."""
    has = SimpleNamespace(**{
        "seed": 0, "valid": 1, "test": 2, "label": 0, "scale": 1.0, "kind": torch.float32, "files": None,
        "noise": None, "activation": torch.tanh, "dropout": 0.2, "momentum": 0.1, "slope": 1.0,
        "at_evaluation": 1.0, "drawn": None, "smoothing": 0.0, "weights": (1.0, 1.0, 1.0), "power": 1,
        "order": 1} | changed)

    def part(seed: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(seed)) * has.scale
        y = torch.arange(60) % 3
        y[17] = (y[17] + has.label) % 3
        return (100 * x).to(has.kind) / 100 if has.kind.is_floating_point else x.mul(9).to(has.kind), y

    def data() -> Any:
        if has.files is None:
            return part(has.seed), part(has.test), part(has.valid)
        for row, x in enumerate(part(has.files)[0]):
            np.save(folder / f"{row}.npy", x.numpy())
        made = Files(folder, has.noise() if has.noise else float)
        return made, made, made

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target, torch.tensor(has.weights), reduction="none",
                                           label_smoothing=has.smoothing)

    def collate(items: list[Any]) -> Any:
        x = torch.stack([torch.as_tensor(x) for x, _ in items])
        return x[:, [*range(4)][::has.order]], torch.tensor([y for _, y in items])

    return SimpleNamespace(
        __name__="theirs", data=data, net=lambda: Net(has), loss=loss, collate=collate,
        metric=lambda output, target: (output.argmax(1) == target).double().mean() ** has.power)


class Stopping(ProgressDisplay):
    def __init__(self) -> None:
        self.seen = 0

    def after(self, run: Run, point: Point) -> None:
        self.seen += 1
        if self.seen == 3:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Outcome]:
    """A run of `theirs` with these changes."""
    monkeypatch.setattr("pontryagin.run.reports.training.write_report", lambda out, _: out / "report.html")

    def run(out: str, display: ProgressDisplay | None = None, resume: bool = False, **changed: Any
            ) -> Outcome:
        monkeypatch.setitem(sys.modules, "theirs", theirs(tmp_path, **changed))
        collate = "theirs:collate" if "files" in changed else None
        task = task_from("theirs:net", "theirs:data", "theirs:loss", metric="theirs:metric",
                         validation="own", collate=collate)
        settings = RunSettings(out=tmp_path / out, methods=("adam",), iterations=6, batch_size=12,
                               evaluations=1, resume=resume)
        return run_training(task, settings, "a command", display or ProgressDisplay())

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def torch_noise() -> float:
    return float(torch.rand(()))


FILES = {"files": 0}
TURNED: Callable[[Tensor], Tensor] = lambda x: torch.where(x > 0, x.tanh(), 0.5 * x.tanh())  # noqa: E731


@pytest.mark.parametrize(("begun", "now", "named"), [
    pytest.param({}, {"seed": 7}, "training data", id="training data"),
    pytest.param({}, {"test": 7}, "test data", id="test data"),
    pytest.param({}, {"valid": 7}, "validation data", id="validation data"),
    pytest.param({}, {"label": 1}, "training data", id="a label"),
    pytest.param({}, {"scale": 1.001}, "training data", id="scale"),
    pytest.param({"kind": torch.int64}, {"kind": torch.uint8}, "training data", id="dtype"),
    pytest.param(FILES, {"files": 1}, "training data", id="files"),
    pytest.param(FILES, FILES | {"order": -1}, "training data", id="collate"),
    pytest.param(FILES | {"noise": lambda: torch_noise}, FILES | {"noise": lambda: lambda: 2 * torch_noise()},
                 "training data", id="augmentation"),
    pytest.param({}, {"activation": torch.sin}, "network outputs", id="activation"),
    pytest.param({}, {"activation": TURNED}, "network outputs", id="activation, a little"),
    pytest.param({}, {"dropout": 0.25}, "network outputs", id="dropout"),
    pytest.param({}, {"momentum": 0.2}, "network outputs", id="momentum of a normalization"),
    pytest.param({}, {"at_evaluation": 1.1}, "network outputs", id="at evaluation alone"),
    pytest.param({}, {"slope": 0.5}, "gradient", id="backward pass"),
    pytest.param({}, {"drawn": lambda: 1}, "initial weights", id="initial weights"),
    pytest.param({}, {"smoothing": 0.2}, "loss", id="loss"),
    pytest.param({}, {"weights": (1.0, 1.0, 1.2)}, "loss", id="weight of a class"),
    pytest.param({}, {"power": 2}, "metric", id="metric"),
])
def test_what_has_become_another_is_refused_and_nothing_touched(
        begun: dict[str, Any], now: dict[str, Any], named: str, train: Callable[..., Outcome], tmp_path: Path
        ) -> None:
    assert train("run", Stopping(), **begun).interrupted
    before = content(tmp_path / "run")
    with pytest.raises(CheckpointError, match=f"the run began: {named} .* then, .* now") as refused:
        train("run", resume=True, **now)
    assert "\n" not in str(refused.value)
    assert content(tmp_path / "run") == before


@pytest.mark.parametrize("has", [
    {}, FILES, FILES | {"noise": lambda: torch_noise}, FILES | {"noise": lambda: np.random.rand},
    FILES | {"noise": lambda: random.random},
    {"drawn": lambda: 5}, {"kind": torch.uint8}],
    ids=["tensors", "files", "noise of torch", "noise of numpy", "noise of Python", "weights", "bytes"])
def test_what_is_the_same_goes_on_bitwise(has: dict[str, Any], train: Callable[..., Outcome], tmp_path: Path
                                          ) -> None:
    train("whole", **has)
    assert train("run", Stopping(), **has).interrupted
    with pytest.raises(CheckpointError, match="not as when the run began: training data"):
        train("run", resume=True, **has | ({"files": 3} if "files" in has else {"label": 1}))
    assert not train("run", resume=True, **has).interrupted
    one, other = (checkpoint.read(tmp_path / name / "models" / "adam-seed0.pt")["model"]
                  for name in ("whole", "run"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(("begun", "now"), [
    pytest.param({}, {"scale": 1 + 1e-6}, id="last bits of data"),
    pytest.param({}, {"activation": lambda x: 2 * torch.sigmoid(2 * x) - 1}, id="written otherwise"),
    pytest.param(*[FILES | {"noise": lambda: np.random.default_rng().random}] * 2, id="no seed"),
    pytest.param(*[FILES | {"noise": lambda: np.random.default_rng(0).random}] * 2, id="with one of its own"),
    pytest.param(FILES | {"noise": lambda: itertools.count().__next__},
                 FILES | {"noise": lambda: iter([5] * 700 + [*range(9999)]).__next__}, id="at times alone"),
    pytest.param(*[FILES | {"noise": lambda: random.Random().random}] * 2, id="of Python, no seed"),
    pytest.param(*[{"drawn": lambda: random.SystemRandom().randrange(10**6)}] * 2, id="weights, no seed"),
])
def test_what_only_looks_another_goes_on(begun: dict[str, Any], now: dict[str, Any],
                                         train: Callable[..., Outcome]) -> None:
    assert train("run", Stopping(), **begun).interrupted
    assert not train("run", resume=True, **now).interrupted


def test_a_checkpoint_of_before_is_refused_and_its_model_evaluated(
        train: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    train("run")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="is of format 1, which does not tell data and network"):
        train("run", resume=True)
    assert checkpoint.read(tmp_path / "run" / "models" / "adam-seed0.pt")["format"] == 1


@pytest.mark.parametrize(("now", "told"), [
    ({}, False), ({"activation": torch.sin}, True), ({"test": 7}, True), ({"smoothing": 0.2}, True),
    ({"seed": 7}, False)], ids=["nothing", "network", "test data", "loss", "training data"])
def test_predict_says_that_the_run_had_another_loss(
        now: dict[str, Any], told: bool, train: Callable[..., Outcome], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    train("run")
    monkeypatch.setitem(sys.modules, "theirs", theirs(tmp_path, **now))
    lines = predict(Prediction(tmp_path / "run", model="theirs:net", data="theirs:data", loss="theirs:loss"))
    assert ("Not as it was" in lines[-1]) == told


def test_a_loss_that_fails_on_more_samples_is_told_before_there_is_a_folder(
        train: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = nn.functional.cross_entropy

    def fails(output: Tensor, *others: Any, **named: Any) -> Tensor:
        if len(output) > 2:
            raise ZeroDivisionError("of\nmine")
        return usual(output, *others, **named)

    monkeypatch.setattr(nn.functional, "cross_entropy", fails)
    with pytest.raises(ExperimentError, match="loss theirs:loss: ZeroDivisionError: of mine"):
        train("run")
    assert not (tmp_path / "run").exists()
