import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from pontryagin.run.errors import ExperimentError
from pontryagin.run.parts import build_model, load_cost, load_data
from pontryagin.run.splits import Splits
from pontryagin.run.user_code import import_object

CODE = '''
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

WIDTH = 3
READY = nn.Linear(2, 2)

class Net(nn.Module):
    class Inner(nn.Linear):
        def __init__(self):
            super().__init__(4, 1)

    def __init__(self, width=5, *, outputs=2):
        super().__init__()
        self.layer = nn.Linear(width, outputs)

    def forward(self, x):
        return self.layer(x)

class Squares(Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, row):
        return torch.full((3,), float(row)), row % 2

class Broken(Squares):
    def __getitem__(self, row):
        return {"x": 1}

def make(width):
    return Net(width)

def fails(depth=1):
    raise KeyError("no such depth")

def numbers():
    return 17

def pair():
    return (torch.rand(8, 3), torch.arange(8) % 4), (torch.rand(4, 3), torch.arange(4))

def three(samples=5):
    return Squares(), Squares(), TensorDataset(torch.rand(samples, 3), torch.rand(samples, 2))

def keys():
    return {"train": Squares(), "test": Squares()}

def misspelt():
    return {"train": Squares(), "tset": Squares()}

def only_one():
    return torch.rand(8, 3), torch.arange(8)

def uneven():
    return (torch.rand(8, 3), torch.arange(7)), (torch.rand(8, 3), torch.arange(8))

def infinite():
    return (torch.full((2, 2), float("nan")), torch.arange(2)), (torch.rand(2, 2), torch.arange(2))

def broken():
    return Broken(), Broken()

def many():
    return torch.rand(1), torch.rand(1), torch.rand(1), torch.rand(1)

def generator():
    return (x for x in range(3)), Squares()

def absolute(output, target):
    return (output - target).abs().mean()
'''

DATA = Splits((torch.rand(8, 1, 8, 8), torch.arange(8) % 4), (torch.rand(4, 1, 8, 8), torch.arange(4)))


@pytest.fixture(autouse=True)
def _user(tmp_path, monkeypatch):
    """A folder with a user's modules, where the command is called."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nets.py").write_text(CODE)
    (tmp_path / "cracked.py").write_text("def Net(:\n")
    (tmp_path / "needy.py").write_text("import not_installed_at_all\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {"mine", "cracked", "needy", "leaving"}:
            del sys.modules[name]


@pytest.mark.parametrize(("spec", "arguments", "weight"), [
    ("mine.nets:Net", {}, (2, 5)), ("mine.nets:Net", {"width": 7, "outputs": 3}, (3, 7)),
    ("mine.nets:make", {"width": 4}, (2, 4)),
    ("mine.nets:Net.Inner", {}, (1, 4)), ("torch.nn:Linear", {"in_features": 2, "out_features": 9}, (9, 2))])
def test_a_users_model(spec, arguments, weight):
    model = build_model(spec, arguments, DATA)
    assert next(model.parameters()).shape == weight


@pytest.mark.parametrize(("spec", "message"), [
    ("mine.nets", "unknown model 'mine.nets'.*residual-cnn"),
    ("mine/nets.py:Net", "write mine.nets:Net"),
    ("mine.nets:", "package.module:name"), (":Net", "package.module:name"), ("a:b:c", "package.module:name"),
    ("mine.nots:Net", "no module named 'mine.nots'.*current folder"),
    ("yours.nets:Net", "no module named 'yours'"),
    ("mine.nets:Nett", "has no 'Nett'; did you mean Net"),
    ("mine.nets:WIDTH", "expected a class or function, found int"),
    ("mine.nets:READY", "made already"),
    ("mine.nets:numbers", "expected a torch module, but it returned int"),
    ("mine.nets:make", r"takes \(width\), was given no arguments: missing"),
    ("mine.nets:fails", r"KeyError: 'no such depth' \(.*nets.py, line 3\d\)"),
    ("cracked:Net", "SyntaxError"), ("needy:Net", "not_installed_at_all.*needy.py, line 1"),
    ("leaving:Net", "SystemExit"),
])
def test_what_is_wrong_with_a_model_is_said(spec, message):
    with pytest.raises(ExperimentError, match=message) as raised:
        build_model(spec, {}, DATA)
    assert "\n" not in str(raised.value)


def test_unknown_arguments_are_refused():
    with pytest.raises(ExperimentError, match=r"takes \(width=5, \*, outputs=2\), was given widht=3"):
        build_model("mine.nets:Net", {"widht": 3}, DATA)
    with pytest.raises(ExperimentError, match="steps=3"):
        build_model("residual-cnn", {"steps": 3}, DATA)


@pytest.mark.parametrize(("spec", "arguments"), [
    ("residual-cnn", {"layers": 2, "channels": 4, "step_size": 0.1}), ("mlp", {"width": 8, "depth": 2})])
def test_ready_models_fit_the_data(spec, arguments):
    model = build_model(spec, arguments, DATA)
    assert model(DATA.train[0]).shape == (8, 4)


def test_an_autoencoder_of_ready_data():
    data = load_data("digits", {"reconstruct": True})
    inputs, targets = data.train
    assert torch.equal(inputs.flatten(1), targets)
    assert build_model("autoencoder", {"widths": (5,)}, data)(inputs[:2]).shape == (2, 64)


def test_models_start_from_the_global_generator():
    torch.manual_seed(1)
    first = build_model("mlp", {}, DATA)
    torch.manual_seed(1)
    second = build_model("mlp", {}, DATA)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_ready_data_is_standardized():
    data = load_data("digits")
    assert data.train[0].mean().item() == pytest.approx(0, abs=1e-5)
    assert data.train[0].std().item() == pytest.approx(1, abs=1e-4)
    plain = load_data("digits", {"standardize": False})
    torch.testing.assert_close((plain.test[0] - plain.train[0].mean()) / plain.train[0].std(), data.test[0])
    assert data.shape() == (1, 8, 8)
    assert data.outputs() == 10
    assert data.validation is None


def test_a_users_data():
    pair = load_data("mine.nets:pair")
    assert pair.train[0].shape == (8, 3)
    assert pair.outputs() == 4
    three = load_data("mine.nets:three", {"samples": 4})
    assert len(three.train) == 6
    assert len(three.validation) == 4
    assert three.shape() == (3,)
    assert three.outputs() is None
    assert Splits(three.validation, three.test).outputs() == 2
    assert len(load_data("mine.nets:keys").test) == 6


@pytest.mark.parametrize(("spec", "message"), [
    ("cifar", "expected digits, mnist, fashion-mnist, my.module:function"),
    ("mine.nets:numbers", r"expected \(train, test\).*found int"),
    ("mine.nets:misspelt", "found train, tset"),
    ("mine.nets:only_one",
     r"train: expected a torch Dataset with a length or a pair of tensors.*a tensor of shape \(8, 3\)"),
    ("mine.nets:uneven", r"train: expected as many targets as inputs.*\(8, 3\) and \(7,\)"),
    ("mine.nets:infinite", "train: the inputs hold NaN"),
    ("mine.nets:broken", "expected a pair"),
    ("mine.nets:many", "expected .train, test."),
    ("mine.nets:generator", "found generator"),
])
def test_what_is_wrong_with_data_is_said(spec, message):
    with pytest.raises(ExperimentError, match=message) as raised:
        load_data(spec)
    assert "\n" not in str(raised.value)


def test_a_ready_model_of_unknown_outputs_asks_for_them():
    three = load_data("mine.nets:three")
    with pytest.raises(ExperimentError, match="argument outputs"):
        build_model("mlp", {}, three)
    assert build_model("mlp", {"outputs": 2}, three)(torch.rand(1, 3)).shape == (1, 2)


def test_a_users_loss():
    assert load_cost("mine.nets:absolute")(torch.ones(2), torch.zeros(2)).item() == 1.0
    with pytest.raises(ExperimentError, match=r"loss 'mine\.nets:absolut'"):
        load_cost("mine.nets:absolut")


def test_the_current_folder_comes_first_once():
    import_object("mine.nets:Net", "model")
    import_object("mine.nets:make", "model")
    assert isinstance(load_data("mine.nets:three").validation, TensorDataset)
    assert sys.path.count(str(Path.cwd())) == 1
