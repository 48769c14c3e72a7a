"""Run by torchrun: EMSA where stages have owners, under DistributedDataParallel, fully_shard and tensor
parallel, beside one process; a checkpoint of some ranks that others go on from."""

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from pontryagin.distributed import join, share
from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.optim import EMSA, Acceptance, Metric, StageOwners

Wrap = Callable[[nn.Module, Any], nn.Module]


class Block(nn.Module):
    """Attention and a gated layer with norms before them, as in Llama."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.attention = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(4))
        self.gated = nn.ModuleList(nn.Linear(*sizes, bias=False)
                                   for sizes in ((width, 3 * width), (width, 3 * width), (3 * width, width)))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value, out = self.attention
        gate, up, down = self.gated
        y = self.norms[0](x)
        heads = [one(y).unflatten(-1, (2, -1)).transpose(1, 2) for one in (query, key, value)]
        seen = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + out(seen.transpose(1, 2).flatten(2))
        y = self.norms[1](x)
        return x + down(nn.functional.silu(gate(y)) * up(y))


class Last(nn.Module):
    """Of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


def mlp() -> nn.Sequential:
    """Equal stages, shares of rows that do not divide, a stage of few rows."""
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh(),
                         nn.Linear(9, 3))


def cnn() -> nn.Sequential:
    """A grouped convolution and a norm; six inputs are an image."""
    return nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.Tanh(),
                         nn.Conv2d(4, 4, 1, groups=2), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(),
                         nn.Linear(8, 3))


def llama() -> nn.Sequential:
    """Six tokens."""
    return nn.Sequential(nn.Embedding(7, 8), Block(8), Block(8), nn.RMSNorm(8), Last(),
                         nn.Linear(8, 3, bias=False))


MODELS = {"mlp": mlp, "cnn": cnn, "llama": llama}


def sharded(model: nn.Module, mesh: Any) -> nn.Module:
    """Blocks by themselves, the rest together."""
    for part in model:
        if isinstance(part, Block | nn.Conv2d):
            fully_shard(part, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def by_columns_and_rows(model: nn.Module, mesh: Any) -> nn.Module:
    """The layers of the multilayer perceptron by turns."""
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel(),
                                            "4": ColwiseParallel(), "6": RowwiseParallel()})


def replicated(model: nn.Module, mesh: Any) -> nn.Module:
    """DistributedDataParallel."""
    return nn.parallel.DistributedDataParallel(model)


class Run:
    """Training on global batches, in two parts each, accumulated and clipped. rank, ranks: whose share of the
    samples this process takes; some have none."""

    def __init__(self, name: str, wrap: Wrap | None = None, mesh: Any = None, rank: int = 0, ranks: int = 1,
                 **options: Any) -> None:
        torch.manual_seed(3)
        self.model = MODELS[name]().double()
        self.called = self.model if wrap is None else wrap(self.model, mesh)
        self.rank, self.ranks, self.is_text = rank, ranks, name == "llama"
        metric = Metric(moment_rows=None, refresh_budget=1e9, metric_rank=4)
        self.optimizer = EMSA(self.model, lr=0.01, metric=metric, **options)
        self.generator, self.losses = torch.Generator().manual_seed(1), []

    def batch(self, samples: int) -> tuple[Tensor, Tensor]:
        """The same for all."""
        x = torch.randn(samples, 6, generator=self.generator, dtype=torch.float64)
        if self.is_text:
            x = x.abs().mul(3).long().clamp_max(6)
        return x, torch.randint(0, 3, (samples,), generator=self.generator)

    def steps(self, numbers: range) -> "Run":
        """Of 12 to 16 samples."""
        for number in numbers:
            self.optimizer.zero_grad(set_to_none=number % 2 == 0)
            samples, total = 12 + number % 5, torch.zeros((), dtype=torch.float64)
            for _ in range(2):
                x, y = self.batch(samples)
                rows = self.rows(samples, number)
                loss = nn.functional.cross_entropy(self.called(x[rows]), y[rows], reduction="sum")
                part = loss * self.ranks / samples / 2
                part.backward()
                total += part.detach()
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
            self.optimizer.step(loss=20 * total)  # so that the last stage has a unit above 1
        return self

    def rows(self, samples: int, number: int) -> slice:
        """Of this rank; in every third step the last has none."""
        busy = self.ranks - (self.ranks > 1 and number % 3 == 2)
        return share(samples, self.rank, busy) if self.rank < busy else slice(0, 0)

    def skip(self, steps: range) -> "Run":
        """The batches of these."""
        for number in steps:
            for _ in range(2):
                self.batch(12 + number % 5)
        return self

    def found(self) -> list[Tensor]:
        """The controls, and the averages."""
        controls = [entire(parameter) for parameter in self.model.parameters()]
        self.optimizer.eval()
        averages = [entire(parameter) for parameter in self.model.parameters()]
        self.optimizer.train()
        return [*controls, *averages]

    @property
    def numbers(self) -> int:
        """In the optimizer's state of this process."""
        entries = [value for known in self.optimizer.state.values() for value in known.values()]
        return sum(value.numel() for value in entries)


def entire(parameter: Tensor) -> Tensor:
    """A copy of the whole."""
    value = parameter.detach()
    return (value.full_tensor() if isinstance(value, DTensor) else value).clone()


def furthest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference."""
    return max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))


def states(run: Run) -> dict[str, Any]:
    """Of model and optimizer."""
    return {"model": get_model_state_dict(run.model),
            "optimizer": get_optimizer_state_dict(run.model, run.optimizer)}


def resumed(run: Run, folder: Path, **options: Any) -> Run:
    """From a checkpoint."""
    loaded = states(run)
    checkpoint.load(loaded, checkpoint_id=folder, **options)
    set_model_state_dict(run.model, loaded["model"])
    set_optimizer_state_dict(run.model, run.optimizer, loaded["optimizer"])
    return run


def checkpoints(name: str, steps: int, folder: Path, rank: int, ranks: int, alone: list[Tensor]
                ) -> dict[str, float]:
    """Saved by all ranks, gone on from by fewer, in other ways, and by one process."""
    mesh, half, found = distributed.init_device_mesh("cpu", (ranks,)), steps // 2, {}
    run = Run(name, sharded, mesh, rank, ranks).steps(range(half))
    checkpoint.save(states(run), checkpoint_id=folder)
    all_in_one = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole = deepcopy(get_optimizer_state_dict(run.model, run.optimizer, options=all_in_one))
    rest = range(half, steps)
    found["left alone"] = furthest(run.steps(rest).found(), alone)
    other = Run(name, replicated, None, rank, ranks, process_group=StageOwners(bucket=30)).skip(range(half))
    found["owners go on"] = furthest(resumed(other, folder).steps(rest).found(), alone)
    if ranks > 2:
        fewer = distributed.new_group(list(range(ranks - 1)))
        sub = distributed.device_mesh.DeviceMesh("cpu", list(range(ranks - 1)))
        if rank < ranks - 1:
            few = Run(name, sharded, sub, rank, ranks - 1).skip(range(half))
            resumed(few, folder, process_group=fewer)
            found["fewer go on"] = furthest(few.steps(rest).found(), alone)
    if rank == 0:
        single = resumed(Run(name).skip(range(half)), folder, no_dist=True)
        found["one goes on"] = furthest(single.steps(rest).found(), alone)
        single = Run(name).skip(range(half))
        set_model_state_dict(single.model, resumed(Run(name), folder, no_dist=True).model.state_dict())
        set_optimizer_state_dict(single.model, single.optimizer, whole)
        found["one goes on from all in one"] = furthest(single.steps(rest).found(), alone)
    return found


def refusals(rank: int, ranks: int) -> list[str]:
    """What is said where sharded parameters cannot be stepped, of a copy, and where one rank cannot begin."""
    mesh, found = distributed.init_device_mesh("cpu", (ranks,)), []

    def note(attempt: Callable[[], object]) -> None:
        try:
            attempt()
        except (ProblemError, NonFiniteError) as error:
            found.append(str(error))

    def flat(model: nn.Module, **options: Any) -> nn.Module:
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **options)

    def wrapped_since(**options: Any) -> None:
        model = mlp()
        optimizer = EMSA(model)
        flat(model, **options)(torch.ones(2, 6)).sum().backward()
        optimizer.step()

    inside = mlp()
    flat(nn.ModuleList([inside]), use_orig_params=True)
    note(lambda: EMSA(flat(mlp())))
    note(lambda: EMSA(inside))
    note(lambda: wrapped_since(use_orig_params=True))
    note(wrapped_since)
    note(lambda: EMSA(sharded(mlp(), mesh), acceptance=Acceptance()))
    both = distributed.init_device_mesh("cpu", (1, ranks), mesh_dim_names=("shards", "columns"))
    note(lambda: EMSA(fully_shard(by_columns_and_rows(mlp(), both["columns"]), mesh=both["shards"])))
    run = Run("mlp", sharded, mesh, rank, ranks)
    note(lambda: deepcopy(run.optimizer))
    before = run.steps(range(1)).found()
    run.called(run.batch(3)[0]).sum().backward()
    note(lambda: run.optimizer.step(loss=torch.tensor(torch.inf if rank == 1 else 1.0)))
    run.optimizer.zero_grad()
    run.called(run.batch(3)[0]).sum().mul(torch.inf if rank == 0 else 1.0).backward()
    note(run.optimizer.step)
    assert furthest(run.found(), before) == 0
    return found


def cases(rank: int, ranks: int) -> dict[str, Callable[[str], Run]]:
    """By what is around the model."""
    mesh, small = distributed.init_device_mesh("cpu", (ranks,)), StageOwners(bucket=60)
    found = {"fully_shard": lambda name: Run(name, sharded, mesh, rank, ranks, process_group=small),
             "owners": lambda name: Run(name, replicated, None, rank, ranks, process_group=small)}
    if ranks == 4:
        pairs = distributed.init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
        found["replicas"] = lambda name: Run(name, sharded, pairs, rank, ranks)
    return found


def main(folder: Path, steps: int, asked: Sequence[str]) -> None:
    """Differences from one process, by case, into a file of each rank."""
    with join() as communicator:
        rank, ranks, found = communicator.rank, communicator.size, {}
        alone = {name: Run(name).steps(range(steps)) for name in asked if name in MODELS}
        numbers = {"alone": {name: run.numbers for name, run in alone.items()}}
        for kind, make in cases(rank, ranks).items():
            runs = {name: make(name).steps(range(steps)) for name in alone}
            found |= {f"{kind}, {name}": furthest(run.found(), alone[name].found())
                      for name, run in runs.items()}
            numbers[kind] = {name: run.numbers for name, run in runs.items()}
        if "tensor parallel" in asked:
            mesh = distributed.init_device_mesh("cpu", (ranks,))
            run = Run("mlp", by_columns_and_rows, mesh).steps(range(steps))
            found["tensor parallel"] = furthest(run.found(), alone["mlp"].found())
        for name, run in alone.items():
            if f"checkpoints of {name}" in asked:
                found |= {f"{kind}, {name}": value for kind, value in checkpoints(
                    name, steps, folder / name, rank, ranks, run.found()).items()}
        refused = refusals(rank, ranks) if "refusals" in asked else []
        torch.save({"furthest": found, "numbers": numbers, "refused": refused}, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
