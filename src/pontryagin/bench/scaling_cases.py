"""The problems of `pontryagin bench scaling`: equal residual tanh stages of any depth, width and number of
samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from pontryagin.maximizer import LBFGS, ClosedForm, Maximizer
from pontryagin.problem import ControlProblem, SquaredError, euler, split_euler

MAXIMIZERS = ("lbfgs", "closed-form")
SHARES = ("propagation", "moments", "maximization", "communication")
"""The parts of an iteration."""
TEXT = ("series", "maximizer")
NUMBERS = ("depth", "width", "samples", "processes", "round", "seconds", *SHARES, "memory")
"""Columns of metrics.csv: an iteration by `processes` in seconds, and by how many MiB the resident set
grew."""


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
