"""The ways in which people train under fully_shard: several processes take the steps of one."""

from pathlib import Path

import fully_shard_program
import pytest
import torch
from torchrun import torchrun


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ways(ranks: int, tmp_path: Path) -> None:
    done = torchrun(ranks, Path(fully_shard_program.__file__), str(tmp_path), limit=600)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(ranks):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert {name: value for name, value in found["exact"].items() if not value < 1e-10} == {}
        # state: a few numbers a stage that every process knows
        assert {name: value for name, value in found["costs"].items() if not abs(value) < 0.02} == {}
        assert {name: value for name, value in found["near"].items() if not value < 0.05} == {}
        *around, early, part, unreal = found["refused"]
        assert len(around) == 2
        assert all("0.weight is sharded from outside of" in told for told in around)
        assert early.endswith("make a new EMSA(model)")
        assert "0.weight is in no module that fully_shard was called on" in part
        assert "is on the meta device" in unreal
        assert len(found["without"]) == 4
        for unknown, without in (found["without"][:2], found["without"][2:]):
            assert "call evaluate_averages(model, optimizer) first" in unknown
            assert "the controls are not in it" in without
