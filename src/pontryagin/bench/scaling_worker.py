"""What `pontryagin bench scaling` measures: equal residual tanh stages of any depth, width and number of
samples, and EMSA on the paper's CNN. Started by torchrun, one thread a process, it measures."""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, distributed, nn

from pontryagin.bench.memory import reset_peak, resident
from pontryagin.distributed import Processes, StageParallel, join
from pontryagin.hamiltonian import Penalties
from pontryagin.maximizer import LBFGS, ClosedForm, Maximizer
from pontryagin.optim import EMSA, StageOwners
from pontryagin.problem import ControlProblem, SquaredError, euler, split_euler
from pontryagin.run.ending import end_with_parent
from pontryagin.run.exit_status import end_of, say_last
from pontryagin.run.files import Table
from pontryagin.run.models import residual_cnn
from pontryagin.run.user_code import cause
from pontryagin.update import ExtendedMSA, Fixed
from pontryagin.update.acceleration import Plain

MAXIMIZERS = ("lbfgs", "closed-form")
SHARES = ("propagation", "moments", "maximization", "communication")
"""The parts of an iteration."""
TEXT = ("series", "maximizer")
NUMBERS = ("depth", "width", "samples", "processes", "round", "seconds", *SHARES, "memory")
"""Columns of metrics.csv: an iteration by `processes` in seconds, and by how many MiB the resident set
grew."""
RHO = Penalties(50.0, 0.1)
"""Fixed: no trial is repeated, every iteration is the same work."""
_MEASURED = ("seconds", *SHARES, "memory")
_LEAST = torch.tensor([name == "communication" for name in _MEASURED])
"""Waiting for another rank counts as communication: what is reported is its least over the ranks, of other
parts the most."""
OWNERS, FULLY_SHARD = ", owners", ", fully_shard"
AROUND = ("", OWNERS, FULLY_SHARD)
"""DistributedDataParallel where every process steps all stages, where stages have owners, and shards."""
BATCH, WARM_UP, ITERATIONS, LAYERS, CHANNELS = 100, 20, 60, 7, 32
"""Of EMSA: the paper's batch and network, timed after a warm-up."""


@dataclass(frozen=True)
class Case:
    """series: what it belongs to (strong, weak, depth, samples). processes: the numbers of processes that it
    is run by."""

    series: str
    maximizer: str
    depth: int
    width: int
    samples: int
    processes: tuple[int, ...] = (1,)


def cases(processes: Sequence[int], maximizers: Sequence[str], quick: bool) -> list[Case]:
    """Strong scaling at 20 and 100 stages, narrow ones whose cost is that of calling and wide ones; weak
    scaling with 20 stages a process; and the cost of one process by depth and by samples."""
    every, found = tuple(sorted({1, *processes})), []
    depths = (10, 30, 100) if quick else (10, 30, 100, 300, 1000)
    batches = (500, 1000, 2000) if quick else (500, 1000, 2000, 4000, 8000)
    for name in maximizers:
        found += [Case("strong", name, depth, 8, 500, every) for depth in ((20,) if quick else (20, 100))]
        found += [] if quick else [Case("strong", name, depth, 128, 250, every) for depth in (20, 100)]
        found += [Case("weak", name, 20 * number, 8, 500, (number,)) for number in every]
        found += [Case("samples", name, 20, 8, samples) for samples in batches]
        found += [Case("depth", name, depth, 8, 500) for depth in depths]
    return found


def problem_of(case: Case) -> ControlProblem:
    """Seeded; float64. T = 1 at every depth, so that states stay of one size."""
    generator = torch.Generator().manual_seed(case.depth)
    x = torch.randn(case.samples, case.width, generator=generator, dtype=torch.float64)
    if case.maximizer == "closed-form":
        stages = split_euler(torch.tanh, case.width, 1 / case.depth, case.depth, dtype=torch.float64)
    else:
        layer = nn.Sequential(nn.Linear(case.width, case.width), nn.Tanh()).double()
        stages = euler(layer, 1 / case.depth, case.depth)
    started = [replace(one,
                       start=0.3 * torch.randn(one.start.shape, generator=generator, dtype=torch.float64))
               if one.size else one for one in stages]
    return ControlProblem(started, SquaredError(), x, x.sin())


def maximizer_of(case: Case) -> Maximizer:
    """As in the paper, or in closed form."""
    return LBFGS(10) if case.maximizer == "lbfgs" else ClosedForm(0.05)


def stages(request: Path) -> None:
    """Every case by each number of processes, in turn, so that a busy machine slows all of them alike.

    request: a JSON file with cases, rounds and the table to write.
    """
    wanted = json.loads(request.read_text(encoding="utf-8"))
    with join() as communicator, ExitStack() as stack:
        groups = {size: distributed.new_group(range(size)) for size in range(1, communicator.size + 1)}
        alone = [distributed.new_group([rank]) for rank in range(communicator.size)]
        table = None if communicator.rank else stack.enter_context(
            Table(Path(wanted["table"]), (*TEXT, *NUMBERS)))
        for fields in wanted["cases"]:
            measure(Case(**{**fields, "processes": tuple(fields["processes"])}), wanted["rounds"], groups,
                    alone[communicator.rank], table)
        distributed.barrier()


def measure(case: Case, rounds: int, groups: dict[int, distributed.ProcessGroup],
            own: distributed.ProcessGroup, table: Table | None) -> None:
    """One iteration a round by each number of processes, after one to warm up; the others wait meanwhile.

    Where several processes take part, a round also has every one of them do the whole iteration by itself at
    the same time (processes 0 in the table): what the machine gives to so many when they have nothing to say
    to each other.
    """
    rank, problem = distributed.get_rank(), problem_of(case)
    solvers: dict[int, ExtendedMSA] = {}
    for number in range(rounds + 1):
        for size in (*case.processes, *((0,) if len(case.processes) > 1 else ())):
            row = torch.zeros(len(_MEASURED), dtype=torch.float64)
            distributed.barrier()
            if size == 0 or rank < size:
                solvers.setdefault(size, _solver(problem, case, groups.get(size, own)))
                row = _iteration(solvers[size])
            rows = [torch.zeros_like(row) for _ in range(distributed.get_world_size())]
            distributed.all_gather(rows, row)
            if table is not None and number:
                every = torch.stack(rows[:size or None])
                values = torch.where(_LEAST, every.amin(0), every.amax(0))
                table.add(case.series, case.maximizer, case.depth, case.width, case.samples, size, number,
                          *values.tolist())
                table.flush()


def _solver(problem: ControlProblem, case: Case, group: distributed.ProcessGroup) -> ExtendedMSA:
    parallel = StageParallel(Processes(group), costs=[float(stage.size) for stage in problem.stages])
    return ExtendedMSA(problem, maximizer=maximizer_of(case), penalty=Fixed(RHO), acceleration=Plain(),
                       parallel=parallel)


def _iteration(solver: ExtendedMSA) -> Tensor:
    """Seconds of a whole iteration and of its parts, and by how many MiB the resident set grew at its peak
    (NaN where the system does not tell)."""
    parallel = solver.parallel
    known = Path("/proc/self/clear_refs").exists()
    resting = reset_peak() if known else 0
    before, sent, began = dict(parallel.seconds), parallel.communication, perf_counter()
    solver.step()
    seconds = perf_counter() - began
    parts = [parallel.seconds[name] - before[name] for name in SHARES[:-1]]
    peak = (resident(peak=True) - resting) / 2**20 if known else nan
    return torch.tensor([seconds, *parts, parallel.communication - sent, peak], dtype=torch.float64)


def optimizer(table: Path, number: int) -> None:
    """EMSA on random images, the batch shared by the ranks: a row with the median of the seconds of an
    iteration for each of what may be around the model."""
    with join() as communicator:
        kinds = AROUND if communicator.size > 1 else AROUND[:1]
        found = _optimized(kinds, communicator.rank, communicator.size)
        if communicator.rank == 0:
            out = Table(table, (*TEXT, *NUMBERS), keep=table.stat().st_size)
            for kind, seconds in found.items():
                out.add("optimizer", f"emsa{kind}", LAYERS + 3, CHANNELS, BATCH, communicator.size, number,
                        median(seconds), *[None] * (len(SHARES) + 1))
            out.flush()


def _optimized(kinds: Sequence[str], rank: int, ranks: int) -> dict[str, list[float]]:
    """Seconds of each iteration after the warm-up, from barrier to barrier: forward, backward, step; one of
    each kind in turn."""
    torch.manual_seed(0)
    images = torch.randn(BATCH, 1, 28, 28)[rank::ranks]
    labels = torch.randint(10, (BATCH,))[rank::ranks]
    made = {kind: _made(kind, ranks) for kind in kinds}
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(WARM_UP + ITERATIONS):
        for kind, (trained, emsa) in made.items():
            distributed.barrier()
            began = perf_counter()
            loss = nn.functional.cross_entropy(trained(images), labels)
            emsa.zero_grad()
            loss.backward()
            emsa.step()
            distributed.barrier()
            found[kind].append(perf_counter() - began)
    return {kind: seconds[WARM_UP:] for kind, seconds in found.items()}


def _made(kind: str, ranks: int) -> tuple[nn.Module, EMSA]:
    """The network with its optimizer."""
    torch.manual_seed(1)
    model = residual_cnn(layers=LAYERS, channels=CHANNELS)
    if ranks == 1:
        return model, EMSA(model)
    if kind == FULLY_SHARD:
        from torch.distributed.fsdp import fully_shard

        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # it takes no other
        fully_shard(model, mesh=distributed.init_device_mesh("cpu", (ranks,)))
        return model, EMSA(model)
    trained = nn.parallel.DistributedDataParallel(model)
    return trained, EMSA(model, process_group=StageOwners()) if kind == OWNERS else EMSA(trained)


def _main(kind: str, path: Path, *more: str) -> int:
    """The status of the process: what ends it is one line."""
    end_with_parent()
    torch.set_num_threads(1)
    try:
        if kind == "stages":
            stages(path)
        else:
            optimizer(path, *map(int, more))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 # which the parent is told
        return say_last(*(end_of(error) or (cause(error), 1)))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
