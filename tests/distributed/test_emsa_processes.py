"""EMSA by several processes takes the steps of one process on the same global batches."""

from pathlib import Path

import emsa_program
import pytest
import torch
from torchrun import torchrun

from builders import assert_all_close


def assert_same_controls(ranks: int, iterations: int, folder: Path) -> None:
    done = torchrun(ranks, Path(emsa_program.__file__), str(folder), str(iterations), limit=600)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = emsa_program.trained(iterations, 0, 1)
    files = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]
    for one in files:
        assert all(torch.equal(mine, first)
                   for mine, first in zip(one["parameters"], files[0]["parameters"], strict=True))
        assert_all_close(one["parameters"], alone, 1e-10)


def test_two_processes(tmp_path: Path) -> None:
    assert_same_controls(2, 50, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
def test_fifty_iterations(ranks: int, tmp_path: Path) -> None:
    assert_same_controls(ranks, 50, tmp_path)
