"""Run by torchrun: solvers on every rank; the controls and records of every rank go into a file."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import sleep
from typing import Any

import torch
from torch import Tensor, nn

from builders import TanhAffine, mixed_problem, normal, split_problem, started
from pontryagin.distributed import Communicator, StageParallel, join, share
from pontryagin.maximizer import LBFGS, ByForm, ClosedForm
from pontryagin.problem import ControlProblem, SquaredError, euler, stage
from pontryagin.update import AcceptReject, AsynchronousMSA, AsynchronousRecord, ExtendedMSA, Secant
from pontryagin.update.acceleration import Plain


def one_stage() -> ControlProblem:
    """Fewer stages than ranks."""
    stages = [started(stage(nn.Linear(3, 2, dtype=torch.float64)), seed=1),
              started(euler(TanhAffine(2), 0.3, 1)[0], seed=4)]
    return ControlProblem(stages, SquaredError(), normal(7, 3, seed=2), normal(7, 2, seed=3))


def tanh(samples: int, seed: int = 0) -> ControlProblem:
    """Residual tanh stages between projections, as in the paper, on a target that they can approach."""
    stages = [started(stage(nn.Linear(2, 4, dtype=torch.float64)), seed=seed + 90),
              *(started(one, seed=seed + n, scale=0.3)
                for n, one in enumerate(euler(TanhAffine(4), 0.25, 5))),
              started(stage(nn.Linear(4, 1, dtype=torch.float64)), seed=seed + 91)]
    x = normal(samples, 2, seed=seed + 50)
    return ControlProblem(stages, SquaredError(), x, x.sin().sum(1, keepdim=True))


OPENED = ExitStack()
"""Executors of this program's own."""


class Slow(ThreadPoolExecutor):
    """Every argmax takes a third of a second more."""

    def submit(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
        return super().submit(lambda: (sleep(0.3), call(*arguments, **options))[1])


def one_rank_is_slow(communicator: Communicator) -> AsynchronousMSA:
    executor = Slow(1) if communicator.rank == 1 else ThreadPoolExecutor(1)
    OPENED.callback(executor.shutdown, wait=True, cancel_futures=True)
    return AsynchronousMSA(tanh(17), staleness=4, maximizer=ByForm(ClosedForm(0.05), LBFGS(4)),
                           communicator=communicator, executor=executor)


CASES = {
    "closed form": lambda parallel: ExtendedMSA(split_problem(5, 4, 23), maximizer=ClosedForm(0.05),
                                                parallel=parallel),
    "secants": lambda parallel: ExtendedMSA(
        split_problem(4, 3, 20), maximizer=ClosedForm(0.05), penalty=AcceptReject(rho=1.0, restart=True),
        acceleration=Secant(), parallel=parallel),
    "lbfgs": lambda parallel: ExtendedMSA(tanh(23), maximizer=LBFGS(10), acceleration=Plain(),
                                          parallel=parallel),
    "both": lambda parallel: ExtendedMSA(tanh(17), maximizer=ByForm(ClosedForm(0.05), LBFGS(4)),
                                         parallel=parallel),
    "few stages": lambda parallel: ExtendedMSA(one_stage(), maximizer=ByForm(ClosedForm(0.05), LBFGS(4)),
                                               parallel=parallel),
    "few samples": lambda parallel: ExtendedMSA(mixed_problem(["conv"], ["tanh"], 3, samples=2),
                                                maximizer=ByForm(
        ClosedForm(0.05), LBFGS(4)), parallel=parallel),
    "no staleness": lambda parallel: AsynchronousMSA(tanh(17), staleness=0,
                                                     maximizer=ByForm(ClosedForm(0.05), LBFGS(4)),
                                                     communicator=parallel.communicator),
    "stale": lambda parallel: AsynchronousMSA(tanh(17), staleness=2,
                                              maximizer=ByForm(ClosedForm(0.05), LBFGS(4)),
                                              communicator=parallel.communicator, workers=2),
    "one slow rank": lambda parallel: one_rank_is_slow(parallel.communicator),
}


def batches(solver: ExtendedMSA, iterations: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Three of about a third of the samples, again and again; of uneven sizes."""
    x, y = solver.problem.initial_state, solver.problem.target
    for number in range(iterations):
        rows = share(len(x), number % 3, 3)
        yield x[rows], y[rows]


def run(case: str, iterations: int, communicator: Communicator) -> tuple[list[Tensor], list[list[float]]]:
    """Controls and, of each iteration, J and mu, and of an asynchronous one the greatest age and the number
    of stages."""
    name, *options = case.split(", ")
    solver = CASES[name](StageParallel(communicator, samples=communicator if "shares" in options else None))
    records = ([solver.step(batch) for batch in batches(solver, iterations)] if "batches" in options
               else [solver.step() for _ in range(iterations)])
    ages = [[float(max(r.staleness)), float(len(r.stages))] if isinstance(r, AsynchronousRecord) else []
            for r in records]
    return list(solver.controls), [[r.objective_after, r.optimality_gap, *own]
                                   for r, own in zip(records, ages, strict=True)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with join() as communicator, OPENED:
        found = {case: run(case, int(sys.argv[2]), communicator) for case in sys.argv[3:]}
        torch.save(found, Path(sys.argv[1]) / f"rank{communicator.rank}.pt")
