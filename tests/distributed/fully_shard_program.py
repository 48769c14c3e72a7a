"""Run by torchrun: EMSA under fully_shard in the ways in which people train with it, each beside one process
that trains the whole model."""

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from owners_program import Block, Last, entire, furthest, llama, mlp, resumed, states
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

from pontryagin.distributed import join, share
from pontryagin.errors import ProblemError
from pontryagin.optim import EMSA, Averaged, Metric, StageOwners, evaluate_averages

STEPS, SAMPLES = 8, 12
Make = Callable[[], nn.Module]
Wrap = Callable[[nn.Module], nn.Module | None]


class Tied(nn.Module):
    """The table of embeddings is the last layer's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last, self.head = nn.Embedding(7, 8), Last(), nn.Linear(8, 7, bias=False)
        self.block = Block(8)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.block(self.table(x))))


class Branch(nn.Module):
    """A layer that every second pass leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 3)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        x = self.first(x).tanh()
        return self.third(self.second(x).tanh() if self.passes % 2 else x)


def checkpointed() -> nn.Module:
    """Its blocks are computed again."""
    model = llama()
    for n, part in enumerate(model):
        model[n] = checkpoint_wrapper(part) if isinstance(part, Block) else part
    return model


def frozen() -> nn.Module:
    """A layer, the weight of another, the bias of a third."""
    model = mlp()
    for parameter in (*model[0].parameters(), model[2].weight, model[4].bias):
        parameter.requires_grad_(False)
    return model


def batches(is_text: bool, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same for all."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(SAMPLES, 6, generator=generator, dtype=torch.float64)
        yield (x.abs().mul(3).long().clamp_max(6) if is_text else x), torch.randint(
            0, 3, (SAMPLES,), generator=generator)


class Run:
    """A model that is trained by a rank of several, or by one process alone."""

    def __init__(self, make: Make, wrap: Wrap | None, rank: int, ranks: int,
                 dtype: torch.dtype = torch.float64,
                 optimizer: Callable[[nn.Module], Any] | None = None, **options: Any) -> None:
        torch.manual_seed(3)
        model = make().to(dtype)
        self.is_text = any(isinstance(part, nn.Embedding) for part in model.modules())
        self.model = model if wrap is None else wrap(model) or model
        self.rank, self.ranks, self.dtype = (rank, ranks, dtype) if wrap is not None else (0, 1, dtype)
        metric = Metric(moment_rows=None, refresh_budget=1e9, metric_rank=4)
        self.optimizer = optimizer(model) if optimizer else EMSA(model, metric=metric, **options)

    def trained(self, steps: int = STEPS, parts: int = 1, clip: bool = True) -> "Run":
        """parts: passes a step, whose gradients are summed, over processes with the last. clip: torch does
        not where only some parameters are sharded."""
        for x, y in batches(self.is_text, steps):
            self.optimizer.zero_grad()
            for part in range(parts):
                rows = slice(part * SAMPLES // parts, (part + 1) * SAMPLES // parts)
                mine = share(SAMPLES // parts, self.rank, self.ranks)
                with self.unsynchronized(part < parts - 1):
                    inputs = x[rows][mine] if self.is_text else x[rows][mine].to(self.dtype)
                    out = self.model(inputs).double()
                    (nn.functional.cross_entropy(out, y[rows][mine], reduction="sum")
                     * self.ranks / SAMPLES).backward()
            if clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return self

    def unsynchronized(self, is_so: bool) -> Any:
        """Where torch offers it."""
        if hasattr(self.model, "set_requires_gradient_sync"):
            self.model.set_requires_gradient_sync(not is_so)
        return self.model.no_sync() if is_so and hasattr(self.model, "no_sync") else nullcontext()

    def found(self) -> list[Tensor]:
        """All numbers."""
        return [entire(parameter) for parameter in self.model.parameters()]


def ways(mesh: Any) -> dict[str, tuple[Make, Wrap, dict[str, Any]]]:
    """Name: the model, what is done to it, how it is trained."""

    def whole(model: nn.Module, **options: Any) -> None:
        for part in model.modules():
            if isinstance(part, Block):
                fully_shard(part, mesh=mesh, **options)
        fully_shard(model, mesh=mesh, **options)

    def averaged_by_hand(model: nn.Module) -> None:
        def average(parameter: Tensor) -> None:
            distributed.all_reduce(parameter.grad)
            parameter.grad.div_(mesh.size())

        for parameter in model[0].parameters():
            parameter.register_post_accumulate_grad_hook(average)
        fully_shard(model, mesh=mesh, ignored_params=set(model[0].parameters()))

    def by_layers(model: nn.Module) -> None:
        fully_shard(model.second, mesh=mesh)
        fully_shard(model, mesh=mesh)

    def materialized(model: nn.Module) -> None:
        values = {name: value.clone() for name, value in model.state_dict().items()}
        whole(model.to("meta"))
        model.to_empty(device="cpu")
        set_model_state_dict(model, values, options=StateDictOptions(full_state_dict=True))

    return {
        "gradients summed before they are reduced": (mlp, whole, {"parts": 2}),
        "no_sync of owners": (mlp, nn.parallel.DistributedDataParallel, {"parts": 2}),
        "computed again": (checkpointed, whole, {}),
        "frozen": (frozen, whole, {}),
        "shared weights": (Tied, whole, {}),
        "a layer left out": (Branch, by_layers, {}),
        "offloaded": (mlp, lambda model: whole(model, offload_policy=CPUOffloadPolicy(pin_memory=False)), {}),
        "kept whole": (llama, lambda model: whole(model, reshard_after_forward=False), {}),
        "left to the user": (mlp, averaged_by_hand, {"clip": False}),
        "made on the meta device": (mlp, materialized, {}),
    }


def low_precision(mesh: Any, rank: int, ranks: int) -> dict[str, float]:
    """The mean distance of losses from one process's in float32, over the steps."""
    policies = {"passes in bfloat16": (torch.float32, MixedPrecisionPolicy(torch.bfloat16, torch.float32)),
                "weights in bfloat16": (torch.bfloat16, MixedPrecisionPolicy(reduce_dtype=torch.float32))}
    alone, found = Run(mlp, None, rank, ranks, torch.float32).trained().found(), {}
    for name, (dtype, policy) in policies.items():
        def wrap(model: nn.Module, policy: MixedPrecisionPolicy = policy) -> None:
            fully_shard(model, mesh=mesh, mp_policy=policy)

        run = Run(mlp, wrap, rank, ranks, dtype).trained()
        assert all(one.dtype == dtype for one in run.found())
        found[name] = furthest([one.float() for one in run.found()], alone)
    return found


def averages(mesh: Any, rank: int, ranks: int) -> dict[str, float]:
    """Evaluated and saved by themselves; weights that are loaded begin new ones."""
    def wrap(model: nn.Module) -> None:
        fully_shard(model, mesh=mesh)

    found: dict[str, float] = {}
    makers: dict[str, Any] = {"EMSA": None, "Averaged": lambda model: Averaged(
        torch.optim.AdamW(model.parameters(), 0.01))}
    for name, maker in makers.items():
        runs = [Run(mlp, way, rank, ranks, optimizer=maker) for way in (None, wrap)]
        shown = []
        for run in runs:
            hooks = evaluate_averages(run.model, run.optimizer)
            run.trained()
            with torch.no_grad():
                run.model.eval()(torch.ones(2, 6, dtype=torch.float64))
            outputs = [run.model(torch.ones(2, 6, dtype=torch.float64)).detach()]
            run.model.train()
            run.trained(2)  # the controls again, also of what fully_shard has left whole
            controls = run.found()
            saved = get_model_state_dict(run.model, options=StateDictOptions(full_state_dict=True))
            shown.append([*outputs, *controls, *(value.clone() for value in saved.values())])
            start = Run(mlp, None, rank, ranks).model.state_dict()
            set_model_state_dict(run.model, start, options=StateDictOptions(full_state_dict=True))
            run.trained(2)
            hooks.remove()
            for show in (run.optimizer.eval, run.optimizer.train, run.optimizer.eval):
                show()
                with torch.no_grad():  # after which fully_shard has left weights whole
                    outputs.append(run.model(torch.ones(2, 6, dtype=torch.float64)))
            shown[-1] += [*outputs[1:], *run.found()]
        found[f"averages of {name}"] = furthest(*shown)
    return found


def checkpoints(mesh: Any, rank: int, ranks: int, folder: Path) -> tuple[dict[str, float], list[str]]:
    """Averaged saved by all ranks, gone on from by fewer, by one, and from all in one; a rank has its part of
    the averages, beside an optimizer with a state and one without. And what is said of a state without the
    controls, and where the model is not known."""
    found, refused = {}, []

    def way(among: Any) -> Wrap:
        return lambda model: fully_shard(model, mesh=among)

    def ended(run: Run) -> list[Tensor]:
        controls = run.trained(3).found()
        entries = run.optimizer.state_dict()["state"].values()
        return [*controls, *(entire(each["averaged_mean_control"]) for each in entries)]

    def note(attempt: Callable[[], object]) -> None:
        try:
            attempt()
        except ProblemError as error:
            refused.append(str(error))

    makers = {"AdamW": partial(torch.optim.AdamW, lr=0.01), "SGD": partial(torch.optim.SGD, lr=0.1)}
    for name, maker in makers.items():
        def made(model: nn.Module, maker: Any = maker) -> Averaged:
            return Averaged(maker(model.parameters()))

        run, place = Run(mlp, way(mesh), rank, ranks, optimizer=made).trained(4), folder / name
        parts = [value.to_local() for each in run.optimizer.state_dict()["state"].values()
                 for key, value in each.items() if key == "averaged_mean_control"]
        found[f"{name}: a part"] = float(sum(part.numel() for part in parts) != sum(
            parameter.to_local().numel() for parameter in run.model.parameters()))
        checkpoint.save(states(run), checkpoint_id=place)
        options = StateDictOptions(full_state_dict=True)
        whole = deepcopy(get_optimizer_state_dict(run.model, run.optimizer, options=options))
        kept, weights = deepcopy(run.optimizer.state_dict()), deepcopy(run.model.state_dict())
        note(run.optimizer.eval)
        hooks = evaluate_averages(run.model, run.optimizer)
        checkpoint.save(states(run), checkpoint_id=folder / f"{name} shown")
        hooks.remove()
        run.optimizer.train()
        expected = ended(run)
        found[f"{name}: alone"] = furthest(ended(Run(mlp, None, 0, 1, optimizer=made).trained(4)), expected)
        again = Run(mlp, way(mesh), rank, ranks, optimizer=made).trained(1)
        again.model.load_state_dict(weights)
        again.optimizer.load_state_dict(kept)
        found[f"{name}: from its own"] = furthest(ended(again), expected)
        again = resumed(Run(mlp, way(mesh), rank, ranks, optimizer=made), place)
        set_optimizer_state_dict(again.model, again.optimizer, whole, options=options)
        found[f"{name}: from all in one"] = furthest(ended(again), expected)
        evaluated = Run(mlp, way(mesh), rank, ranks, optimizer=made)
        evaluate_averages(evaluated.model, evaluated.optimizer)
        found[f"{name}: shown"] = furthest(ended(resumed(evaluated, folder / f"{name} shown")), expected)
        other = Run(mlp, way(mesh), rank, ranks, optimizer=made)
        note(partial(resumed, other, folder / f"{name} shown"))
        fewer = distributed.new_group(list(range(ranks - 1)))
        few = distributed.device_mesh.DeviceMesh("cpu", list(range(ranks - 1)))
        if rank < ranks - 1:
            some = resumed(Run(mlp, way(few), rank, ranks - 1, optimizer=made), place, process_group=fewer)
            found[f"{name}: fewer"] = furthest(ended(some), expected)
        if rank == 0:
            single = resumed(Run(mlp, None, 0, 1, optimizer=made), place, no_dist=True)
            found[f"{name}: one"] = furthest(ended(single), expected)
    return found, refused


def costs(mesh: Any, rank: int, ranks: int) -> dict[str, float]:
    """Of an ordinary step of sixteen equal layers: numbers sent, and the share of the optimizer's state,
    relative to what they are on paper."""
    sent, usual = [0], distributed.all_to_all_single

    def counted(into: Tensor, packed: Tensor, received: list[int], leaving: list[int], **named: Any) -> Any:
        sent[0] += sum(leaving) - leaving[rank]
        return usual(into, packed, received, leaving, **named)

    def deep() -> nn.Module:
        return nn.Sequential(nn.ConstantPad1d((0, 10), 0.5), *[nn.Linear(16, 16) for _ in range(16)])

    def numbers(run: Run) -> int:
        return sum(value.numel() for known in run.optimizer.state.values() for value in known.values())

    distributed.all_to_all_single, found = counted, {}
    total = sum(parameter.numel() for parameter in deep().parameters())
    on_paper = {"fully_shard": 2 * total * (ranks - 1) / ranks**2, "owners": total * (ranks - 1) / ranks}
    whole = numbers(Run(deep, None, rank, ranks, optimizer=EMSA).trained(6))
    for name, expected in on_paper.items():
        wrap = nn.parallel.DistributedDataParallel if name == "owners" else partial(fully_shard, mesh=mesh)
        group = StageOwners() if name == "owners" else None
        run = Run(deep, wrap, rank, ranks, optimizer=partial(EMSA, process_group=group)).trained(5)
        sent[0] = 0
        run.trained(1)  # the sixth step: no look before it or after it
        found |= {f"sent under {name}": sent[0] / expected - 1,
                  f"state under {name}": numbers(run) * ranks / whole - 1}
    distributed.all_to_all_single = usual
    return found


def refusals(mesh: Any) -> list[str]:
    """Made on a part, or before it is sharded; sharded in part, on the meta device."""
    found = []

    def note(attempt: Callable[[], object]) -> None:
        try:
            attempt()
        except ProblemError as error:
            found.append(str(error))

    around = nn.Sequential(mlp(), nn.Linear(3, 3))
    fully_shard(around, mesh=mesh)
    note(lambda: EMSA(around[0]))
    note(lambda: evaluate_averages(around[0], EMSA(around)))
    early = Run(mlp, lambda model: None, mesh.get_rank(), mesh.size())
    fully_shard(early.model, mesh=mesh)
    note(lambda: early.trained(1))
    part = mlp()
    fully_shard(part[2], mesh=mesh)
    note(lambda: EMSA(part))
    with torch.device("meta"):
        unreal = mlp()
    fully_shard(unreal, mesh=mesh)
    note(lambda: EMSA(unreal))
    return found


def main(folder: Path) -> None:
    """What each rank has found, into a file."""
    with join() as communicator:
        rank, ranks = communicator.rank, communicator.size
        mesh, exact = distributed.init_device_mesh("cpu", (ranks,)), {}
        for name, (make, wrap, how) in ways(mesh).items():
            options = {"process_group": StageOwners()} if "owners" in name else {}
            run = Run(make, wrap, rank, ranks, **options).trained(**how)
            exact[name] = furthest(run.found(), Run(make, None, rank, ranks).trained(**how).found())
        exact |= averages(mesh, rank, ranks)
        going_on, without = checkpoints(mesh, rank, ranks, folder)
        torch.save({"exact": exact | going_on, "costs": costs(mesh, rank, ranks), "without": without,
                    "refused": refusals(mesh), "near": low_precision(mesh, rank, ranks)},
                   folder / f"rank{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
