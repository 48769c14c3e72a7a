"""The ways in which people train under fully_shard: two processes take the steps of one."""

from pathlib import Path

import fully_shard_program
import torch
from torchrun import torchrun


def test_ways_of_two_processes(tmp_path: Path) -> None:
    done = torchrun(2, Path(fully_shard_program.__file__), str(tmp_path), limit=600)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert {name: value for name, value in found["exact"].items() if not value < 1e-10} == {}
        assert {name: value for name, value in found["near"].items() if not value < 0.05} == {}
        early, part, unreal = found["refused"]
        assert early.endswith("make a new EMSA(model)")
        assert "0.weight is in no module that fully_shard was called on" in part
        assert "is on the meta device" in unreal
