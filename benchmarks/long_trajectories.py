"""Checkpointed propagation beside the plain pass: memory and time at 1,000 and 10,000 stages.

    OMP_NUM_THREADS=1 python -m benchmarks.long_trajectories [--samples 4000] [--repeats 5]

Every pass is a process of its own, which reports how far its resident memory rose above what it had before
the pass, and the process time of a pass. Printed: medians over the repeats, both passes in turn; the
exponent log10(memory at 10,000 / memory at 1,000). Beside the plain pass an eighth of the samples is taken,
so that all states fit.
"""

import gc
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from math import log10
from pathlib import Path
from statistics import median
from time import process_time

import torch
from torch import nn

from pontryagin.problem import ControlProblem, SquaredError, euler
from pontryagin.trajectory import checkpointed, propagate

STAGES, WIDTH, FEWER = (1_000, 10_000), 16, 8


def segments(problem: ControlProblem) -> None:
    """States, costates and gradients, of which nothing is kept."""
    for segment in checkpointed(problem, problem.initial_controls()):
        del segment


def plain(problem: ControlProblem) -> None:
    """All states and costates at once."""
    propagate(problem, problem.initial_controls())


PASSES: dict[str, Callable[[ControlProblem], None]] = {"checkpointed": segments, "plain": plain}


def measured(name: str, stages: int, samples: int) -> tuple[float, float]:
    """MiB, and seconds of process time, of one pass in this process."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
    PASSES[name](ControlProblem(euler(net, 0.1, 10), SquaredError(), *torch.randn(2, 10, WIDTH)))
    problem = ControlProblem(euler(net, 1 / stages, stages), SquaredError(), *torch.randn(2, samples, WIDTH))
    gc.collect()
    before = _resident("VmRSS")
    began = process_time()
    PASSES[name](problem)
    return _resident("VmHWM") - before, process_time() - began


def _resident(what: str) -> float:
    """VmRSS, what is resident now, or VmHWM, the most that ever was; MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {what}: this benchmark needs Linux")


def apart(name: str, stages: int, samples: int) -> tuple[float, float]:
    """The same in a new process."""
    found = subprocess.run([sys.executable, "-m", "benchmarks.long_trajectories", "--one", name, str(stages),
                            "--samples", str(samples)], stdout=subprocess.PIPE, text=True, check=True)
    memory, seconds = found.stdout.split()
    return float(memory), float(seconds)


def compare(samples: int, repeats: int) -> None:
    """The table, row by row."""
    most = {}
    for stages in STAGES:
        found = [apart("checkpointed", stages, samples)[0] for _ in range(repeats)]
        most[stages] = median(found)
        print(f"{stages} stages, {samples} samples: checkpointed {most[stages]:.0f} MiB "
              f"({min(found):.0f} to {max(found):.0f})", flush=True)
        runs = [[apart(name, stages, samples // FEWER) for name in PASSES] for _ in range(repeats)]
        for k, name in enumerate(PASSES):
            memory, seconds = (median(column) for column in zip(*(run[k] for run in runs), strict=True))
            print(f"{stages} stages, {samples // FEWER} samples: {name} {memory:.0f} MiB, {seconds:.2f} s",
                  flush=True)
        ratios = [ours[1] / theirs[1] for ours, theirs in runs]
        print(f"{stages} stages: time, checkpointed / plain {median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    print(f"exponent of memory {log10(most[STAGES[1]] / most[STAGES[0]]):.2f}")


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("PASS", "STAGES"), help="one pass, in this process")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        print(*measured(given.one[0], int(given.one[1]), given.samples))
    else:
        compare(given.samples, given.repeats)


if __name__ == "__main__":
    main()
