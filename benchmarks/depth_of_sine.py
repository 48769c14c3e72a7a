"""Depth as a variable on the sine: `emsa-multilevel`, ten steps first, beside `emsa` with twenty at once.

    OMP_NUM_THREADS=1 python -m benchmarks.depth_of_sine [--seeds 3] [--first 0] [--repeats 2]

Printed: iterations and process time to a loss of 1e-3 and of 1e-4, each with that --coarse-loss, and the
ratio of the times; of runs in turn the fastest. Losses are measured outside of the timed region.
"""

from argparse import ArgumentParser
from dataclasses import replace
from statistics import median
from time import process_time

import torch

from pontryagin.papers.sine.methods import METHODS
from pontryagin.papers.sine.setup import SineSetup
from pontryagin.papers.sine.task import SineTask, Theta
from pontryagin.update import IterationRecord

TARGETS, ITERATIONS = (1e-3, 1e-4), 400


def reached(task: SineTask, method: str, target: float) -> tuple[int, float]:
    """Iterations and seconds until the loss of the whole network is that small."""
    iterations, spent, began = 0, 0.0, process_time()

    def observe(theta: Theta, evaluations: int, record: IterationRecord | None) -> bool:
        nonlocal iterations, spent, began
        spent, iterations = spent + process_time() - began, iterations + 1
        go_on = float(task.loss(theta)) > target
        began = process_time()
        return go_on

    METHODS[method].run(task, ITERATIONS, 0.0, observe)
    return iterations, spent


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for target in TARGETS:
        ratios = []
        for figure in "ab":
            for seed in range(given.first, given.first + given.seeds):
                task = SineTask(figure, seed, replace(SineSetup(), coarse_loss=target))
                found = [[reached(task, method, target) for method in ("emsa", "emsa-multilevel")]
                         for _ in range(given.repeats)]
                (whole, ours), counts = (min(run[k][1] for run in found) for k in range(2)), found[0]
                ratios.append(ours / whole)
                print(f"{target:g}  ({figure}) seed {seed}: emsa {counts[0][0]} iterations, {whole:.3f} s; "
                      f"multilevel {counts[1][0]}, {ours:.3f} s; {ours / whole:.2f}", flush=True)
        print(f"{target:g}  median {median(ratios):.2f}, largest {max(ratios):.2f}")


if __name__ == "__main__":
    main()
