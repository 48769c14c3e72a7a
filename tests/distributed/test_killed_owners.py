"""A rank of three is killed anywhere in a run under fully_shard: the first cause is named, nobody waits
beyond the stated time, and the run that goes on from the last checkpoint is that which was left alone, bit by
bit."""

import random
import re
from pathlib import Path

import killed_owners_program
import pytest
import torch
from killed_program import waited
from torchrun import PATIENCE, torchrun

CALLS = {"start": 1, "forward": 50, "backward": 15, "reduce": 8, "argmax": 8, "scatter": 8, "save": 4}
"""How often each phase begins in a run, at least."""
_DRAWN = random.Random(7)
KILLS = [(phase, str(_DRAWN.randrange(3)), _DRAWN.randint(1, CALLS[phase]))
         for phase in [*CALLS] * 4 + ["argmax", "scatter"]]


def trained(folder: Path, phase: str, rank: str, call: int) -> list[torch.Tensor]:
    """The weights of the run, which must end well."""
    done = torchrun(3, Path(killed_owners_program.__file__), str(folder), phase, rank, str(call),
                    options=("--max-restarts=1",), limit=600)
    assert done.returncode == 0, done.stderr[-3000:]
    if phase != "none":
        assert (folder / "mark").exists(), "nobody was killed"
        assert f"(exitcode: -9) local_rank: {rank}" in done.stderr, done.stderr[-3000:]
        assert set(re.findall(r"rank (\d+) ended", done.stderr)) <= {rank}
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    return trained(tmp_path_factory.mktemp("untouched"), "none", "0", 0)


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "rank", "call"), KILLS)
def test_killed(phase: str, rank: str, call: int, untouched: list[torch.Tensor], tmp_path: Path) -> None:
    """The others do not hang: the time from the kill until all have ended is none of the run's own work, so
    that a busy machine does not stretch it."""
    found = trained(tmp_path, phase, rank, call)
    assert all(torch.equal(one, other) for one, other in zip(found, untouched, strict=True))
    assert waited(tmp_path / "mark") < killed_owners_program.TIMEOUT + PATIENCE
