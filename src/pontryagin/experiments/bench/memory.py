"""Peak memory of training with one optimizer, in a process of its own.

    python -m pontryagin.experiments.bench.memory TASK DATASET FOLDER METHOD

prints how many bytes the resident set grew, at its peak, between the built model and ten iterations later.
"""

import resource
import subprocess
import sys

import torch

from pontryagin.experiments.bench.lockstep import race, racer
from pontryagin.experiments.bench.methods import METHODS
from pontryagin.experiments.bench.tasks import make

ITERATIONS = 10


def peak_growth(task: str, dataset: str, folder: str | None, method: str) -> int | None:
    """Bytes, measured in a new process; None where it fails."""
    command = [sys.executable, "-m", "pontryagin.experiments.bench.memory", task, dataset, folder or "", method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    return int(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.split() else None


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main(task_name: str, dataset: str, folder: str, method: str) -> None:
    """Print the growth in bytes."""
    torch.set_num_threads(1)
    task = make(task_name, dataset, folder or None)
    one = racer(task, METHODS[method], METHODS[method].rates[0], 0)
    before = _resident()
    race(task, [one], ITERATIONS, 0, lambda done, loss: None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
