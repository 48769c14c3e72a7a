"""What others put around optimizers where the model is sharded: two processes of each take the steps of a
plain loop of one."""

from pathlib import Path

import frameworks_program
import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torchrun import torchrun

pytestmark = pytest.mark.slow


def check(name: str, folder: Path, *expected: str) -> None:
    done = torchrun(2, Path(frameworks_program.__file__), name, str(folder), limit=600)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        found = torch.load(folder / f"rank{rank}.pt", weights_only=True)
        assert found.keys() >= set(expected if rank == 0 else ())
        assert found
        assert {one: value for one, value in found.items() if not value < 2e-6} == {}


@pytest.mark.parametrize("program", ["accelerate", "accelerate, whole"])
def test_accelerate(program: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    check(program, tmp_path, "evaluated", "saved", "goes on", "loaded, goes on", "evaluated at the end")


def test_accelerate_with_version_1_of_fsdp_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    check("version 1", tmp_path, "refused")


def test_trainer(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    check("trainer", tmp_path, "trained", "saved at 4", "saved at 8", "evaluated")


def test_lightning(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    check("lightning", tmp_path, "validated")
    dcp_to_torch_save(tmp_path / "last.ckpt", tmp_path / "whole.pt")
    saved = torch.load(tmp_path / "whole.pt", weights_only=False)["state_dict"]
    assert frameworks_program.far(saved.values(), frameworks_program.alone()[1]) < 2e-6


def test_zero_redundancy_optimizer_is_refused(tmp_path: Path) -> None:
    check("zero", tmp_path, "refused")
