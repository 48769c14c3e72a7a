"""Peak memory of training with one optimizer, in a process of its own.

    python -m pontryagin.bench.memory TASK DATASET FOLDER METHOD

prints how many bytes the resident set grew, at its peak, between the built model and ten iterations later.
"""

import ctypes
import gc
import subprocess
import sys
from pathlib import Path

from pontryagin.bench.racers import METHODS, Racer, run_race
from pontryagin.bench.tasks import make
from pontryagin.run.ending import end_with_parent
from pontryagin.run.environment import threads

ITERATIONS = 10
"""Every optimizer has made its state by then."""


def peak_growth(task: str, dataset: str, folder: Path | None, method: str) -> int | None:
    """Bytes, measured in a new process; None where it fails, as on systems without /proc."""
    command = [sys.executable, "-m", "pontryagin.bench.memory", task, dataset, str(folder or ""), method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    return int(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.split() else None


def resident(peak: bool) -> int:
    """Bytes of the resident set: now, or the most since the last reset. Linux only."""
    name = "VmHWM:" if peak else "VmRSS:"
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def reset_peak() -> int:
    """Give unused memory back to the system, let the most begin anew, and return the bytes of the resident
    set. Linux only."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return resident(peak=False)


def main(task_name: str, dataset: str, folder: str, method: str) -> None:
    """Print the growth in bytes."""
    with threads(1):
        task = make(task_name, dataset, Path(folder) if folder else None)
        one = Racer(task, METHODS[method], METHODS[method].rates[0], 0, ITERATIONS)
        before = reset_peak()
        run_race(task, [one], 0, lambda done, loss: None)
        print(resident(peak=True) - before)


if __name__ == "__main__":
    end_with_parent()
    main(*sys.argv[1:])
