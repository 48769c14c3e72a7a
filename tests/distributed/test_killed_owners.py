"""A rank of three is killed anywhere in a run under fully_shard: the first cause is named, nobody waits
beyond the stated time, and the run that goes on from the last checkpoint is that which was left alone, bit by
bit."""

import random
from pathlib import Path
from time import monotonic

import killed_owners_program
import pytest
import torch
from torchrun import torchrun

LIMIT = 50.0
"""Seconds: the timeout of the group and what torchrun gives the others to end."""
CALLS = {"start": 1, "forward": 50, "backward": 15, "reduce": 8, "argmax": 8, "scatter": 8, "save": 4}
"""How often each phase begins in a run, at least."""
_DRAWN = random.Random(7)
KILLS = [(phase, str(_DRAWN.randrange(3)), _DRAWN.randint(1, CALLS[phase]))
         for phase in [*CALLS] * 4 + ["argmax", "scatter"]]


def trained(folder: Path, phase: str, rank: str, call: int) -> float:
    """Seconds of the run, which must end well."""
    began = monotonic()
    done = torchrun(3, Path(killed_owners_program.__file__), str(folder), phase, rank, str(call),
                    options=("--max-restarts=1",), limit=600)
    assert done.returncode == 0, done.stderr[-3000:]
    if phase != "none":
        assert (folder / "mark").exists(), "nobody was killed"
        assert f"(exitcode: -9) local_rank: {rank}" in done.stderr, done.stderr[-3000:]
    return monotonic() - began


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[torch.Tensor], float]:
    folder = tmp_path_factory.mktemp("untouched")
    seconds = trained(folder, "none", "0", 0)
    return torch.load(folder / "weights.pt", weights_only=True), seconds


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "rank", "call"), KILLS)
def test_killed(phase: str, rank: str, call: int, untouched: tuple[list[torch.Tensor], float],
                tmp_path: Path) -> None:
    seconds = trained(tmp_path, phase, rank, call)
    expected, usual = untouched
    found = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert seconds < 3 * usual + LIMIT, "on a machine that has become busier this says nothing"
