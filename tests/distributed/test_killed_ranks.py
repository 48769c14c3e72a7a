"""A killed rank ends all, torchrun starts them again from the last checkpoint, and the end is that of an
untouched run."""

from pathlib import Path

import killed_program
import pytest
import torch
from torchrun import PATIENCE, torchrun

from pontryagin.distributed.start import TIMEOUT

ITERATION = [("0", 2), ("1", 3), ("0", 5), ("1", 7)]
KILLS = [("forward", rank, 12 * number) for rank, number in ITERATION] + [
    (phase, rank, number) for phase in ("backward", "maximize") for rank, number in ITERATION] + [
    ("reduce", "0", 6), ("reduce", "1", 11), ("reduce", "0", 17), ("reduce", "1", 20),
    ("save", "0", 2), ("save", "0", 5), ("save", "0", 9), ("save", "0", 14)]
THREE = [("forward", "1", 20), ("backward", "2", 5), ("reduce", "0", 11), ("save", "0", 5)]
"""Of three processes, with each method."""


def trained(folder: Path, phase: str, rank: str, call: int, ranks: int = 2, method: str = "emsa"
            ) -> dict[str, torch.Tensor]:
    """The weights of the run, which must end well; the others have ended in time."""
    folder.mkdir(exist_ok=True)
    done = torchrun(ranks, Path(killed_program.__file__), str(folder / "mark"), phase, rank, str(call),
                    "train", "--out", str(folder / "run"), "--iterations", "8", "--batch-size", "48",
                    "--model", "mlp", "--method", method, "--resume",
                    "--checkpoint-every", "0", "--evaluations", "2", options=("--max-restarts=1",), limit=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "mark").exists() == (phase != "none"), "nobody was killed"
    assert not list((folder / "run").rglob("*.tmp")), "half-written files are left"
    if phase != "none":
        assert killed_program.waited(folder / "mark") < TIMEOUT + PATIENCE
    return torch.load(folder / "run" / "models" / f"{method}-seed0.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return trained(tmp_path_factory.mktemp("untouched"), "none", "0", 0)


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "rank", "call"), KILLS)
def test_killed(phase: str, rank: str, call: int, untouched: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = trained(tmp_path, phase, rank, call)
    assert all(torch.equal(found[name], value) for name, value in untouched.items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["emsa", "adam"])
def test_three_processes_killed(method: str, tmp_path: Path) -> None:
    """Sums over three are rounded in the same order before and after."""
    expected = trained(tmp_path / "untouched", "none", "0", 0, 3, method)
    for phase, rank, call in THREE:
        found = trained(tmp_path / phase, phase, rank, call, 3, method)
        assert all(torch.equal(found[name], value) for name, value in expected.items()), phase
