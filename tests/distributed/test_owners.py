"""Stages with owners: any number of processes takes the steps of one, whatever lies where."""

from pathlib import Path
from typing import Any

import owners_program
import pytest
import torch
from torchrun import torchrun

from pontryagin.distributed.assignment import share
from pontryagin.distributed.communicator import Alone
from pontryagin.distributed.places import Place, buckets, from_owners, to_owners

TOLERANCE = 1e-10


def ran(ranks: int, folder: Path, *asked: str) -> list[dict[str, Any]]:
    """What each rank has found."""
    done = torchrun(ranks, Path(owners_program.__file__), str(folder), *asked, limit=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]
    for one in found:
        assert one["furthest"]
        far = {name: value for name, value in one["furthest"].items() if not value < TOLERANCE}
        assert not far
    return found


def test_three_processes(tmp_path: Path) -> None:
    """fully_shard and DistributedDataParallel on an MLP, a CNN, a small Llama; tensor parallel; and
    checkpoints."""
    asked = ["tensor parallel", "checkpoints of llama", "refusals"]
    found = ran(3, tmp_path, "6", *owners_program.MODELS, *asked)
    for rank, one in enumerate(found):
        *flat, acceptance, both, copied, unbegun, unreal = one["refused"]
        assert len(flat) == 4
        assert all("use fully_shard (FSDP2)" in told for told in flat)
        assert "acceptance" in acceptance
        assert "tensor parallel" in both
        assert "state_dict()" in copied
        assert ("the loss is inf" if rank == 1 else "rank 1 could not begin") in unbegun
        assert "holds values that are NaN or infinite" in unreal


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_fifty_steps(ranks: int, tmp_path: Path) -> None:
    asked = [f"checkpoints of {name}" for name in owners_program.MODELS]
    asked += ["tensor parallel"] if ranks in (1, 3) else []  # which torch takes where layers of 9 divide
    found = ran(ranks, tmp_path, "50", *owners_program.MODELS, *asked)
    if ranks in (2, 4):  # owners are balanced by flops, and the Llama has two blocks
        alone = found[0]["numbers"]["alone"]["llama"]
        for one in found:
            for kind in ("fully_shard", "owners"):
                assert one["numbers"][kind]["llama"] < 1.35 * alone / ranks


@pytest.mark.parametrize("length", [0, 1, 5, 8, 9])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_parts_are_those_of_chunk(length: int, ranks: int) -> None:
    whole = torch.arange(float(2 * length)).view(2, length)
    place = Place(whole.shape, whole.dtype, 1, 0)
    parts = [place.part(whole, rank, ranks) for rank in range(ranks)]
    assert torch.equal(torch.cat(parts, 1), whole)
    assert [part.shape for part in parts] == [place.part_shape(rank, ranks) for rank in range(ranks)]
    for part, chunk in zip(parts, whole.chunk(ranks, 1), strict=False):
        assert torch.equal(part, chunk)


def test_one_process_has_everything() -> None:
    tensors = [torch.randn(3, 2), torch.randn(4), torch.randn(2, 2, dtype=torch.float64)]
    places = [Place(one.shape, one.dtype, axis, 0) for one, axis in zip(tensors, (0, None, 1), strict=True)]
    there, back = to_owners(Alone(), places, tensors), from_owners(Alone(), places, tensors)
    for travelled in (there.wait(), back.wait()):
        assert all(torch.equal(one, other) for one, other in zip(travelled, tensors, strict=True))


def test_buckets() -> None:
    assert buckets([], 5) == []
    assert buckets([9, 1, 2, 2, 7], 5) == [range(1), range(1, 4), range(4, 5)]
    assert [len(run) for run in buckets([1] * 7, 3)] == [3, 3, 1]
    assert share(7, 1, 2) == slice(3, 7)
