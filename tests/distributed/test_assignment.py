"""Owners of stages: balanced, deterministic, neighbours together; shares of samples."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pontryagin.distributed import assign, loads, reassign, share
from pontryagin.problem import ProblemError

COSTS = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=7)


def least_load(costs: list[float], ranks: int) -> float:
    """By trying all assignments."""
    return min(max(loads(costs, owners, ranks)) for owners in product(range(ranks), repeat=len(costs)))


@given(COSTS, st.integers(1, 3))
def test_within_four_thirds_of_the_best(costs: list[float], ranks: int) -> None:
    found = max(loads(costs, assign(costs, ranks), ranks))
    assert found <= (4 / 3 - 1 / (3 * ranks)) * least_load(costs, ranks) + 1e-9


@given(COSTS, st.integers(1, 5))
def test_every_stage_has_one_owner_and_stages_of_equal_cost_come_in_runs(costs: list[float],
                                                                         ranks: int) -> None:
    owners = assign(costs, ranks)
    assert len(owners) == len(costs)
    assert all(0 <= owner < ranks for owner in owners)
    for cost in set(costs):
        run = [owner for owner, own in zip(owners, costs, strict=True) if own == cost]
        assert run == sorted(run)
    assert owners == assign(list(costs), ranks)


@pytest.mark.parametrize(("stages", "ranks"), [(20, 2), (100, 3), (2, 5), (7, 7)])
def test_equal_stages_are_spread_evenly(stages: int, ranks: int) -> None:
    owners = assign([1.0] * stages, ranks)
    counts = [owners.count(rank) for rank in range(ranks)]
    assert max(counts) - min(counts) <= 1
    assert list(owners) == sorted(owners)


def test_stages_without_cost_are_spread_too() -> None:
    assert assign([0.0] * 4, 2) == (0, 0, 1, 1)


@given(COSTS, st.integers(1, 4))
def test_loads_are_those_of_longest_processing_time_first(costs: list[float], ranks: int) -> None:
    plain = [0.0] * ranks
    for cost in sorted(costs, reverse=True):
        plain[plain.index(min(plain))] += cost
    assert sorted(loads(costs, assign(costs, ranks), ranks)) == sorted(plain)


def test_owners_change_only_when_it_pays() -> None:
    assert reassign([1.0, 1.0, 1.05, 1.0], (0, 0, 1, 1), 2) == (0, 0, 1, 1)
    moved = reassign([1.0, 1.0, 4.0, 1.0], (0, 0, 1, 1), 2)
    assert max(loads([1.0, 1.0, 4.0, 1.0], moved, 2)) == 4.0


@pytest.mark.parametrize(("costs", "ranks"),
                         [([1.0], 0), ([-1.0], 2), ([float("nan")], 2), ([float("inf")], 1)])
def test_refused(costs: list[float], ranks: int) -> None:
    with pytest.raises(ProblemError):
        assign(costs, ranks)


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_are_a_partition(samples: int, ranks: int) -> None:
    shares = [share(samples, rank, ranks) for rank in range(ranks)]
    assert [row for part in shares for row in range(samples)[part]] == list(range(samples))
    sizes = [part.stop - part.start for part in shares]
    assert max(sizes) - min(sizes) <= 1
