"""Without a package of an extra a command works, or says in one line what is missing, before it leaves
anything behind."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pontryagin.cli import main
from pontryagin.cli.commands import parser
from pontryagin.run.errors import EXTRAS, MissingExtraError, need

PROGRAM = Path(__file__).parent / "without_packages.py"
ALL = ",".join(EXTRAS)
IMPORTS = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
import pontryagin
loaded = {"matplotlib", "scipy", "sklearn", "torch._dynamo", "sympy", "rich", "yaml"} & {
    name for name, module in sys.modules.items() if module}
assert not loaded, f"import pontryagin imports {loaded}"
for module in pkgutil.walk_packages(pontryagin.__path__, "pontryagin."):
    if module.ispkg:
        importlib.import_module(module.name)
"""
OWN = """
import torch

def load():
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    return (x[:40], x[:40].sum(1, keepdim=True)), (x[40:], x[40:].sum(1, keepdim=True))

def net():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
"""
TASK = ["--model", "own:net", "--data", "own:load", "--batch-size", "20", "--epochs", "2"]
EXPERIMENTS = ("sine", "binary", "ternary", "saddle", "control", "certificate", "mnist", "fashion-mnist",
               "wall-clock")
REFUSED = {
    "matplotlib": [["reproduce", name] for name in EXPERIMENTS],
    "scipy": [["reproduce", "sine"], ["reproduce", "saddle"], ["reproduce", "control"]],
    "sklearn": [["train"], ["compare"], ["audit", "mlp", "digits"], ["bench", "optimizers"],
                ["reproduce", "certificate"], ["reproduce", "ternary", "--quick"]],
    "pytorch_optimizer": [["train", *TASK, "--method", "soap"],
                          ["compare", *TASK, "--methods", "emsa,schedule-free"],
                          ["bench", "optimizers", "--methods", "shampoo"],
                          ["reproduce", "mnist", "--methods", "soap"]],
    "tensorboard": [["train", *TASK, "--tensorboard"], ["reproduce", "mnist", "--tensorboard"]],
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)


def run_without(packages: str, *commands: list[str]) -> list[tuple[int, str, str]]:
    done = subprocess.run([sys.executable, str(PROGRAM), packages, json.dumps(commands)], capture_output=True,
                          text=True, check=False)
    assert not done.returncode, done.stderr
    return [tuple(result) for result in json.loads(done.stdout)]


def commands(of: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, (*path, name))


def test_every_package_is_imported_and_the_first_brings_little() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS, ALL], stderr=subprocess.PIPE, text=True,
                          check=False)
    assert not done.returncode, done.stderr


def test_every_command_helps() -> None:
    everything = list(commands(parser()))
    assert len(everything) > 15
    results = run_without(ALL, ["--version"], [], *([*path, "--help"] for path in everything))
    (code, printed, _), (bare, listed, _), *helps = results
    assert (code, bare) == (0, 0)
    assert printed.startswith("pontryagin ")
    assert "train a model" in listed
    for path, (code, printed, complained) in zip(everything, helps, strict=True):
        assert code == 0, (path, complained)
        assert "usage: pontryagin" in printed


@pytest.mark.parametrize("package", REFUSED)
def test_what_needs_a_package_is_refused_in_one_line(package: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    for command, (code, _, complained) in zip(REFUSED[package], run_without(package, *REFUSED[package]),
                                              strict=True):
        assert code == 2, (command, complained)
        assert complained.count("\n") == 1, (command, complained)
        assert complained.startswith("pontryagin: "), command
        assert f"which is not installed: pip install 'pontryagin[{EXTRAS[package]}]'" in complained, command
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


def test_a_training_leaves_its_figures_out_and_draws_them_later(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    trained, compared, audited = run_without(ALL, ["train", *TASK],
                                             ["compare", *TASK, "--methods", "emsa,adam"], [
        "audit", "own:net", "own:load", "--batches", "3", "--batch-size", "8", "--predict-only"])
    for name, (code, printed, complained) in (("train", trained), ("compare", compared), ("audit", audited)):
        assert code == 0, complained
        said = printed.splitlines()[0]
        assert said.startswith("Without figures: drawing needs matplotlib, which is not installed")
        page = (tmp_path / "runs" / name / "report.html").read_text(encoding="utf-8")
        assert "Without figures" in page
        assert "<img" not in page
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", *TASK[:4], "--resume"])
    assert not ended.value.code
    page = (tmp_path / "runs" / "train" / "report.html").read_text(encoding="utf-8")
    assert "Without figures" not in page
    assert "<img" in page


def test_a_package_that_is_there_and_broken_is_no_missing_one(tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorboard.py").write_text("raise ImportError('no\\nlibrary')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    with pytest.raises(MissingExtraError) as refused:
        need("tensorboard", "--tensorboard", "leave it out")
    assert str(refused.value) == ("--tensorboard needs tensorboard, which cannot be imported (no library): "
                                  "pip install 'pontryagin[track]', or leave it out")
