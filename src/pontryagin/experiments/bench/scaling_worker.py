"""Started by torchrun: every case by each number of processes, in turn, so that a busy machine slows all of them alike."""

import json
import resource
import sys
from pathlib import Path
from time import perf_counter

import torch
from torch import distributed

from pontryagin.distributed import Processes, StageParallel, join
from pontryagin.experiments.bench.scaling_cases import Case, maximizer_of, problem_of
from pontryagin.experiments.run_directory import Table
from pontryagin.hamiltonian import Penalties
from pontryagin.update import ExtendedMSA, Fixed
from pontryagin.update.acceleration import Plain

COLUMNS = ("series", "maximizer", "depth", "width", "samples", "processes", "round", "seconds", "propagation", "moments",
           "maximization", "communication", "memory")
_RHO = 50.0


def measure(case: Case, rounds: int, groups: dict[int, distributed.ProcessGroup], table: Table | None) -> None:
    """One iteration a round by each number of processes, after one to warm up; the others wait meanwhile."""
    rank, problem = distributed.get_rank(), problem_of(case)
    solvers: dict[int, ExtendedMSA] = {}
    for number in range(rounds + 1):
        for size in case.processes:
            distributed.barrier()
            if rank >= size:
                continue
            if size not in solvers:
                solvers[size] = ExtendedMSA(problem, maximizer=maximizer_of(case), penalty=Fixed(Penalties(_RHO, 0.1)),
                                            acceleration=Plain(), parallel=StageParallel(
                                                Processes(groups[size]), costs=[float(s.size) for s in problem.stages]))
            row = _iteration(solvers[size])
            if table is not None and number:
                table.add(case.series, case.maximizer, case.depth, case.width, case.samples, size, number, *row)
                table.flush()


def _iteration(solver: ExtendedMSA) -> list[float]:
    """Seconds of a whole iteration and of its parts, and the peak of the resident set in MiB."""
    parallel = solver.parallel
    before, sent, began = dict(parallel.seconds), parallel.communication, perf_counter()
    solver.step()
    seconds = perf_counter() - began
    parts = [parallel.seconds[name] - before[name] for name in before]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return [seconds, *parts, parallel.communication - sent, peak]


def main(request: Path) -> None:
    """request: a JSON file with cases, rounds and the table to write."""
    torch.set_num_threads(1)
    wanted = json.loads(request.read_text(encoding="utf-8"))
    with join() as communicator:
        groups = {size: distributed.new_group(range(size)) for size in range(1, communicator.size + 1)}
        table = Table(Path(wanted["table"]), COLUMNS) if communicator.rank == 0 else None
        for fields in wanted["cases"]:
            measure(Case(**{**fields, "processes": tuple(fields["processes"])}), wanted["rounds"], groups, table)
        distributed.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
