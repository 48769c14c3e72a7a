"""Momentum or not: the explicit solver under AcceptReject(), without momentum and with beta 0.5, 0.7 and 0.9.

    OMP_NUM_THREADS=1 python -m benchmarks.momentum [--seeds 3]

Printed, as rows of a csv: medians over the seeds of the iterations until no trial is accepted, so that J is
known to its rounding (at most 150), or of J after a number of iterations.
"""

import csv
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn

from pontryagin.papers.sine.task import SineTask
from pontryagin.problem import ControlProblem, CrossEntropy, SquaredError, stage
from pontryagin.update import Acceleration, AcceptReject, ExtendedMSA, Momentum, Plain

F64 = torch.float64
BETAS = (0.0, 0.5, 0.7, 0.9)
MOST = 150


def network(seed: int, *widths: int, bend: bool = True) -> tuple[torch.Generator, list[nn.Module]]:
    """Linear layers with normal weights of variance 1 / inputs, tanh between them."""
    draws, layers = torch.Generator().manual_seed(seed), []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs, dtype=F64)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(outputs, inputs, dtype=F64, generator=draws) / inputs ** 0.5)
            linear.bias.zero_()
        layers += [linear, nn.Tanh()] if bend else [linear]
    return draws, layers[:-1] if bend else layers


def least_squares(seed: int) -> ControlProblem:
    """One linear stage, 200 samples of 10, noise 0.1."""
    draws, layers = network(seed, 10, 3, bend=False)
    return _regression(draws, layers, torch.ones(10, dtype=F64))


def scaled_and_bent(seed: int) -> ControlProblem:
    """The same with inputs of scales 1 to 0.01 and a tanh after it."""
    draws, layers = network(seed, 10, 3, bend=False)
    return _regression(draws, [*layers, nn.Tanh()], torch.logspace(0, -2, 10, dtype=F64))


def three_linear(seed: int) -> ControlProblem:
    """10-10-10-3 without a tanh, targets that it can reach."""
    draws, layers = network(seed, 10, 10, 10, 3, bend=False)
    return _regression(draws, layers, torch.ones(10, dtype=F64), noise=0.0)


def sine_network(seed: int) -> ControlProblem:
    """1-20-20-1, 200 samples."""
    _, layers = network(seed, 1, 20, 20, 1)
    x = torch.linspace(-3, 3, 200, dtype=F64).unsqueeze(1)
    return ControlProblem([stage(layer) for layer in layers], SquaredError(), x, x.sin())


def classifier(seed: int) -> ControlProblem:
    """10-16-4, 300 samples around four centers that are not well apart."""
    draws, layers = network(seed, 10, 16, 4)
    labels = torch.arange(300) % 4
    centers = torch.randn(4, 10, dtype=F64, generator=draws)
    x = centers[labels] + 3.0 * torch.randn(300, 10, dtype=F64, generator=draws)
    return ControlProblem([stage(layer) for layer in layers], CrossEntropy(), x, labels)


def _regression(draws: torch.Generator, layers: list[nn.Module], scales: Tensor, noise: float = 0.1
                ) -> ControlProblem:
    x = torch.randn(200, 10, dtype=F64, generator=draws) * scales
    truth = torch.randn(10, 3, dtype=F64, generator=draws) / 10 ** 0.5
    y = x @ truth + noise * torch.randn(200, 3, dtype=F64, generator=draws)
    return ControlProblem([stage(layer) for layer in layers], SquaredError(), x, y)


def figure(name: str) -> Callable[[int], ControlProblem]:
    """Of twenty stages, at its start."""
    def make(seed: int) -> ControlProblem:
        task = SineTask(name, seed)
        problem, rows = task.split_problem(), iter(task.start())
        return replace(problem, stages=[replace(one, start=next(rows)) if one.size else one
                                        for one in problem.stages])
    return make


ROWS: list[tuple[str, Callable[[int], ControlProblem], tuple[int, ...]]] = [
    ("least squares: iterations to the rounding of J", least_squares, ()),
    ("one linear stage, inputs of scales 1 to 0.01, and a bend: the same", scaled_and_bent, ()),
    ("three linear stages: J after 12 iterations; after 60", three_linear, (12, 60)),
    ("1-20-20-1 tanh network on a sine: J after 150", sine_network, (150,)),
    ("10-16-4 tanh classifier: J after 100", classifier, (100,)),
    ("Figure 1 (a), twenty stages: J after 200", figure("a"), (200,)),
    ("Figure 1 (b): J after 200", figure("b"), (200,)),
]
"""What is said of a row, its problem by seed, and the iterations at which J is looked at."""


def run(problem: ControlProblem, beta: float, looks: tuple[int, ...]) -> list[float]:
    """J at the looks or, without looks, the iterations."""
    acceleration: Acceleration = Momentum(beta) if beta else Plain()
    solver = ExtendedMSA(problem, penalty=AcceptReject(), acceleration=acceleration)
    found = []
    for record in solver.iterate(max(looks, default=MOST)):
        found.append(record.objective_after)
        if not record.accepted:
            break
    return [found[min(look, len(found)) - 1] for look in looks] or [float(len(found))]


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["", "plain", *BETAS[1:]])
    for said, make, looks in ROWS:
        cells = []
        for beta in BETAS:
            runs = zip(*(run(make(seed), beta, looks) for seed in range(given.seeds)), strict=True)
            values = [median(column) for column in runs]
            cells.append("; ".join(f"{value:.2g}" for value in values) if looks else
                         f"over {MOST}" if values[0] >= MOST else f"{values[0]:.0f}")
        table.writerow([said, *cells])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
