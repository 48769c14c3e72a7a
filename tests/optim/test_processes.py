"""Two processes with half a batch each take the steps of one process with the whole batch."""

import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from optim_builders import assert_close, by_two_processes, emsa_of_all_rows, mlp, parameters, train, vectors
from torch import Tensor, distributed, nn

from pontryagin.affine.moments import Moments
from pontryagin.distributed.reductions import (
    largest_over_processes,
    mean_over_processes,
    sum_over_processes,
    together,
)
from pontryagin.optim import EMSA
from pontryagin.problem import Binary, Ternary

CASES = ["linear", "embedding", "unused on one process", "uneven", "not finite", "discrete", "probes", "told"]
SETS = {"discrete": {"0": Ternary("row"), "2": Binary()}}


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.table(tokens).mean(1)))


class Branch(nn.Module):
    """A part that only batches with a positive mark pass through."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.extra, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).tanh()
        return self.last(hidden + self.extra(hidden).tanh() if x[0, 0] > 0 else hidden)


def model_of(case: str) -> nn.Module:
    torch.manual_seed(0)
    return {"embedding": Words, "unused on one process": Branch}.get(case, mlp)().double()


def batch_of(case: str, seed: int) -> tuple[Tensor, Tensor]:
    x, y = vectors(12, seed=seed)
    if case == "embedding":
        return torch.randint(0, 9, (12, 4), generator=torch.Generator().manual_seed(seed)), y
    if case == "unused on one process":
        x[0, 0], x[6, 0] = 1.0, -1.0
    return x, y


def shard_of(case: str, seed: int, rank: int) -> tuple[Tensor, Tensor]:
    x, y = batch_of(case, seed)
    if case == "uneven":  # the last batch of an epoch; work differs between the processes
        return (x[:2], y[:2]) if rank == 0 else (x[2:], y[2:])
    return x[6 * rank:6 * rank + 6], y[6 * rank:6 * rank + 6]


def budget_of(case: str) -> float:
    """Refreshes in each step; where they are rare, probes between them."""
    return {"uneven": 0.05, "probes": 1e-9}.get(case, 1e9)


def of_one_process(rank: int, folder: Path) -> None:
    """What each of two processes does: all cases; the parameters go into a file."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: dict[str, list[Tensor]] = {}
    for case in CASES:
        model = model_of(case)
        parallel = nn.parallel.DistributedDataParallel(model,
                                                       find_unused_parameters=case == "unused on one process")
        sets = {f"module.{key}": one for key, one in SETS[case].items()} if case in SETS else None
        optimizer = emsa_of_all_rows(parallel, strict=True, refresh_budget=budget_of(case), admissible=sets)
        found[case] = []
        for seed in range(5):
            if case == "not finite" and seed == 1:
                skip(parallel, optimizer, rank)
            train(parallel, optimizer, 1, lambda seed, case=case: shard_of(case, seed, rank), first=seed,
                  told=case == "told")
            found[case].append(parameters(model))
    generator = torch.Generator().manual_seed(rank)
    rows = 1000 + torch.randn(1, 50, 3, generator=generator)
    mean = rows.mean(1)
    second = (rows - mean).mT @ (rows - mean) / 50

    def moments() -> Moments:
        return Moments(mean.clone(), second.clone(), second.diagonal(dim1=1, dim2=2).sum(1))

    def zeros() -> Moments:
        return Moments(torch.zeros(1, 3), torch.zeros(1, 3, 3), torch.zeros(1))

    alone = mean_over_processes(moments(), zeros)
    assert alone is not None
    assert torch.equal(alone.mean, mean), "a process group that merely exists is nobody's"
    with together(distributed.group.WORLD):
        joint = mean_over_processes(moments(), zeros)
        none = mean_over_processes(None, zeros)
        half = mean_over_processes(moments() if rank else None, zeros)
        numbers = [call(3 + rank, rows.device) for call in (largest_over_processes, sum_over_processes)]
    assert joint is not None
    assert half is not None
    found["moments"] = [rows, joint.mean, joint.product, half.mean, half.product, torch.tensor(none is None),
                        torch.tensor(numbers)]
    models_of_their_own(rank)
    by_hand(found)
    torch.save(found, folder / f"rank{rank}.pt")
    distributed.barrier()


def models_of_their_own(rank: int) -> None:
    """Each process trains another model, or none, beside a process group: nobody waits for anybody."""
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(5, 4 + rank), nn.Tanh(), nn.Linear(4 + rank, 3)).double()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, EMSA(model), 3 + 2 * rank, vectors)
    assert sum("process_group" in str(each.message) for each in caught) == 1


def by_hand(found: dict[str, list[Tensor]]) -> None:
    """Gradients averaged without DistributedDataParallel, by a group that is named."""
    model = model_of("linear")
    optimizer = emsa_of_all_rows(model, process_group=distributed.group.WORLD, refresh_budget=1e9)
    found["by hand"] = []
    for seed in range(5):
        optimizer.zero_grad()
        x, y = shard_of("linear", seed, distributed.get_rank())
        nn.functional.cross_entropy(model(x), y).backward()
        for parameter in model.parameters():
            distributed.all_reduce(parameter.grad, op=distributed.ReduceOp.SUM)
            parameter.grad /= 2
        optimizer.step()
        found["by hand"].append(parameters(model))


def skip(model: nn.Module, optimizer: EMSA, rank: int) -> None:
    """A bad batch on one process is refused by both."""
    from pontryagin.problem import NonFiniteError

    x, y = vectors(6, seed=50 + rank)
    if rank:
        x[0, 0] = torch.nan
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    with pytest.raises(NonFiniteError):
        optimizer.step()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    return by_two_processes(__file__, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("case", [*CASES, "by hand"])
def test_both_processes_hold_the_same_parameters(case: str, found: list[dict[str, list[Tensor]]]) -> None:
    for one, other in zip(found[0][case], found[1][case], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("case",
                         ["linear", "embedding", "not finite", "discrete", "probes", "told", "by hand"])
def test_as_one_process_on_the_joint_batch(case: str, found: list[dict[str, list[Tensor]]]) -> None:
    model = model_of(case)
    # the period of refreshes depends on the work of one process
    optimizer = emsa_of_all_rows(model, refresh_budget=budget_of(case), strict=True,
                                 admissible=SETS.get(case))
    for seed in range(5):
        train(model, optimizer, 1, lambda seed: batch_of(case, seed), first=seed, told=case == "told")
        assert_close(found[0][case][seed], parameters(model), 1e-9)


def test_moments_of_both_processes(found: list[dict[str, list[Tensor]]]) -> None:
    """In float32 with a large mean; a process without rows takes part."""
    (rows, mean, moment, *_), (other, half, spread, half_again, spread_again, none, numbers) = (
        found[0]["moments"], found[1]["moments"])
    assert torch.equal(mean, half)
    both = torch.cat([rows, other], 1).double()
    assert_close(mean.double(), both.mean(1), 1e-6)
    assert_close(moment[0].double(), torch.cov(both[0].mT, correction=0), 1e-3)
    assert torch.equal(moment, spread)
    assert_close(half_again.double(), other.double().mean(1), 1e-6)
    assert_close(spread_again[0].double(), torch.cov(other[0].double().mT, correction=0), 1e-3)
    assert bool(none)
    assert numbers.tolist() == [4, 7]


def test_one_process_alone() -> None:
    moments = Moments(torch.ones(1, 2), torch.ones(1, 2, 2), torch.ones(1))
    assert mean_over_processes(moments, lambda: moments) is moments
    assert mean_over_processes(None, lambda: moments) is None
    assert largest_over_processes(3, torch.device("cpu")) == sum_over_processes(3, torch.device("cpu")) == 3


if __name__ == "__main__":
    torch.set_num_threads(1)
    of_one_process(int(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)  # gloo may wait for ever when it is torn down after its peer
