"""Started by torchrun: every case by each number of processes, in turn, so that a busy machine slows all of
them alike."""

import json
import sys
from math import nan
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, distributed

from pontryagin.bench.memory import reset_peak, resident
from pontryagin.bench.scaling_cases import Case, maximizer_of, problem_of
from pontryagin.distributed import Processes, StageParallel, join
from pontryagin.hamiltonian import Penalties
from pontryagin.problem import ControlProblem
from pontryagin.run.files import Table
from pontryagin.update import ExtendedMSA, Fixed
from pontryagin.update.acceleration import Plain

PARTS = ("propagation", "moments", "maximization", "communication")
COLUMNS = ("series", "maximizer", "depth", "width", "samples", "processes", "round", "seconds", *PARTS,
           "memory")
_RHO = 50.0
_LEAST = torch.tensor([name == "communication" for name in COLUMNS[7:]])
"""Waiting for another rank counts as communication: what is reported is its least over the ranks, of other
parts the most."""


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
            row, group = torch.zeros(len(PARTS) + 2, dtype=torch.float64), groups.get(size, own)
            distributed.barrier()
            if size == 0 or rank < size:
                solvers.setdefault(size, _solver(problem, case, group))
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
    return ExtendedMSA(problem, maximizer=maximizer_of(case), penalty=Fixed(Penalties(_RHO, 0.1)),
                       acceleration=Plain(), parallel=parallel)


def _iteration(solver: ExtendedMSA) -> Tensor:
    """Seconds of a whole iteration and of its parts, and by how many MiB the resident set grew at its peak
    (NaN where the system does not tell)."""
    parallel = solver.parallel
    known = Path("/proc/self/clear_refs").exists()
    resting = reset_peak() if known else 0
    before, sent, began = dict(parallel.seconds), parallel.communication, perf_counter()
    solver.step()
    seconds = perf_counter() - began
    parts = [parallel.seconds[name] - before[name] for name in PARTS[:-1]]
    peak = (resident(peak=True) - resting) / 2**20 if known else nan
    return torch.tensor([seconds, *parts, parallel.communication - sent, peak], dtype=torch.float64)


def main(request: Path) -> None:
    """request: a JSON file with cases, rounds and the table to write."""
    torch.set_num_threads(1)
    wanted = json.loads(request.read_text(encoding="utf-8"))
    with join() as communicator:
        groups = {size: distributed.new_group(range(size)) for size in range(1, communicator.size + 1)}
        alone = [distributed.new_group([rank]) for rank in range(communicator.size)]
        own = alone[communicator.rank]
        table = Table(Path(wanted["table"]), COLUMNS) if communicator.rank == 0 else None
        for fields in wanted["cases"]:
            measure(Case(**{**fields, "processes": tuple(fields["processes"])}), wanted["rounds"], groups,
                    own, table)
        distributed.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
