"""Any number of processes gives the controls of one process, on the same global batches."""

from pathlib import Path

import pytest
import solver_program
import torch
from torchrun import torchrun

from builders import assert_all_close
from pontryagin.distributed import Alone


def assert_same_controls(ranks: int, cases: list[str], iterations: int, folder: Path, tolerance: float = 1e-10) -> None:
    done = torchrun(ranks, Path(solver_program.__file__), str(folder), str(iterations), *cases, limit=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]
    for case in cases:
        controls, records = solver_program.run(case, iterations, Alone())
        for one in found:
            assert_all_close(one[case][0], controls, tolerance)
            assert one[case][1] == found[0][case][1], "the records of two ranks differ"
        assert records[-1] != records[0], "nothing has been learned"


AMPLIFIED = 1e-6
"""Where samples are shared, sums over them are rounded in another order, and line searches amplify that."""
SHARES = ["closed form, shares", "few samples, shares", "few stages, batches, shares"]


def test_two_processes(tmp_path: Path) -> None:
    assert_same_controls(2, ["closed form", "both, batches"], 3, tmp_path, 0.0)


def test_two_processes_with_shares_of_the_samples(tmp_path: Path) -> None:
    assert_same_controls(2, SHARES[:1], 3, tmp_path)
    assert_same_controls(2, SHARES[1:], 3, tmp_path, AMPLIFIED)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_fifty_iterations(ranks: int, tmp_path: Path) -> None:
    assert_same_controls(ranks, [*solver_program.CASES, "closed form, batches", "lbfgs, batches"], 50, tmp_path)


@pytest.mark.slow
def test_three_processes_with_shares_of_the_samples(tmp_path: Path) -> None:
    assert_same_controls(3, SHARES, 5, tmp_path, AMPLIFIED)
