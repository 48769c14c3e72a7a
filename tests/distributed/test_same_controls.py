"""Any number of processes gives the controls of one process, on the same global batches."""

from itertools import pairwise
from pathlib import Path

import pytest
import solver_program
import torch
from torchrun import torchrun

from builders import assert_all_close
from pontryagin.distributed import Alone


def assert_same_controls(ranks: int, cases: list[str], iterations: int, folder: Path,
                         tolerance: float = 1e-10) -> None:
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
    assert_same_controls(2, ["no staleness"], 6, tmp_path)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_stale_argmax_are_the_same_on_all_ranks(ranks: int, tmp_path: Path) -> None:
    """When which argmax is ready is up to the machine; what is taken is not up to the rank."""
    cases = ["stale", "one slow rank"]
    done = torchrun(ranks, Path(solver_program.__file__), str(tmp_path), "12", *cases, limit=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]
    for case in cases:
        first, *others = [one[case] for one in found]
        for one in others:
            assert_all_close(one[0], first[0], 0.0)
            assert one[1] == first[1]
        values = [value for value, *_ in first[1]]
        assert all(after <= before for before, after in pairwise(values))
        assert values[-1] < 0.9 * values[0]
    ages, stages = zip(*(record[2:] for record in found[0]["one slow rank"][1]), strict=True)
    assert max(ages) > 0, "the stages of the slow rank come in late"
    assert min(stages) < max(stages), "and those of the others do not wait for them"


def test_two_processes_with_shares_of_the_samples(tmp_path: Path) -> None:
    assert_same_controls(2, SHARES[:1], 3, tmp_path)
    assert_same_controls(2, SHARES[1:], 3, tmp_path, AMPLIFIED)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_fifty_iterations(ranks: int, tmp_path: Path) -> None:
    cases = [case for case in solver_program.CASES if case not in ("stale", "one slow rank")]
    assert_same_controls(ranks, [*cases, "closed form, batches", "lbfgs, batches"], 50, tmp_path)


@pytest.mark.slow
def test_three_processes_with_shares_of_the_samples(tmp_path: Path) -> None:
    assert_same_controls(3, SHARES, 5, tmp_path, AMPLIFIED)
