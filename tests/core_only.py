"""A program for an environment with the core dependencies alone (`make test-core`); ends with 1 where
something is wrong.

The same, package by package, with all packages installed: cli/test_without_packages.py.
"""

import importlib
import os
import pkgutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

import pontryagin
from pontryagin.run.errors import EXTRAS

COMMANDS = (
    (0, "pontryagin 0.", "--version"), (0, "usage: pontryagin", "--help"),
    (0, "usage: pontryagin", "train", "--help"),
    (2, "needs matplotlib, which is not installed: pip install 'pontryagin[plots]'", "reproduce", "sine"),
    (2, "needs scikit-learn, which is not installed: pip install 'pontryagin[data]'", "train"),
    (0, "Without figures: drawing needs matplotlib", "train", "--model", "own:net", "--data", "own:load",
     "--out", "trained"), (0, "loss 0.", "predict", "trained", "--model", "own:net", "--data", "own:load"),
)
"""Exit status, a part of what is printed, the arguments."""
OWN = """
import torch

def load():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    return (x[:150], x[:150].sum(1).sin()), (x[150:], x[150:].sum(1).sin())

def net():
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1),
    torch.nn.Flatten(0))
"""


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(f"core_only: {otherwise}")


def imports() -> None:
    """All packages, and all modules but those that draw."""
    present = [package for package in EXTRAS if find_spec(package)]
    expect(not present,
           f"this environment is to hold the core dependencies alone, it has {', '.join(present)}")
    for module in pkgutil.walk_packages(pontryagin.__path__, "pontryagin."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            expect(error.name == "matplotlib" and not module.ispkg,
                   f"{module.name} cannot be imported: {error}")


def three_steps() -> None:
    """EMSA on a small network lowers the loss."""
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    y = x.sum(1, keepdim=True).sin()
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer, losses = pontryagin.optim.EMSA(model), []
    for _ in range(3):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    expect(losses[2] < losses[0], f"three steps of EMSA should lower the loss, found {losses}")


def command(status: int, part: str, *arguments: str) -> None:
    """The installed program, in the current folder."""
    program = Path(sys.executable).with_name("pontryagin")
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    printed = done.stdout + done.stderr
    line = f"pontryagin {' '.join(arguments)}"
    expect(done.returncode == status and part in printed and "Traceback" not in printed,
           f"`{line}`: expected the exit status {status} and {part!r}, found {done.returncode} "
           f"and:\n{printed}")
    expect(status == 0 or done.stderr.count("\n") == 1, f"`{line}`: expected one line, found:\n{done.stderr}")
    print(f"{line}: {next(found for found in printed.splitlines() if part in found)}")


if __name__ == "__main__":
    imports()
    three_steps()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "own.py").write_text(OWN, encoding="utf-8")
        os.chdir(folder)
        for wanted in COMMANDS:
            command(*wanted)
        left = {path.name for path in Path().iterdir()} - {"own.py", "trained", "__pycache__"}
        expect(not left, f"a refused command left {', '.join(left)} behind")
        expect(not list(Path("trained").rglob("*.png")), "figures without matplotlib")
        os.chdir("/")
    print("The core dependencies are enough for all of this.")
