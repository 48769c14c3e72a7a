"""What an iteration costs, by kind of step."""

import math
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Generator, nn

from benchmarks.device.measures import Marks, Syncs, clean, forget_peak, peak, wait
from benchmarks.device.methods import KINDS, force, kind_of, optimizer_of, passes, step_of
from benchmarks.device.output import PROFILE_SECONDS, STEP_COLUMNS, Deadline, Output, part
from benchmarks.device.tasks import TINY, Sizes, Task
from pontryagin.optim import EMSA

_SECONDS = 25.0
"""The least that the costs of a network are begun with."""
_COLUMNS = ("network", "method", "parameters", "kind", "steps", "ms", "step_ms", "host_ms", "host_step_ms",
            "steady_ms", "refresh_every", "peak_gib", "before_gib", "syncs")


@dataclass
class Cost:
    """Of one method on one network, by kind of step.

    steps: ms of passes and step, of the step alone, and the host's of both; peaks: GiB; syncs: mean number in
    a step; every: steps between two refreshes.
    """

    network: str
    method: str
    parameters: int = 0
    before: float = 0.0
    every: int = 0
    steps: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    syncs: dict[str, float] = field(default_factory=dict)

    def median(self, which: int, kind: str = "ordinary") -> float:
        """0: ms an iteration, 1: of its step, 2: the host's of an iteration, 3: of its step; NaN for none."""
        found = self.steps.get(kind)
        return median(step[which] for step in found) if found else math.nan

    def steady(self, which: int = 0) -> float:
        """ms an iteration in the long run: a probe every 16 steps, a refresh every so many."""
        ordinary = self.median(which)
        if not self.every:
            return ordinary
        probe, refresh = (max(self.median(which, kind) - ordinary, 0.0) for kind in ("probe", "refresh"))
        probe, refresh = (0.0 if math.isnan(more) else more for more in (probe, refresh))
        return ordinary + probe / 16 + refresh / self.every


def measure(task: Task, method: str, sizes: Sizes, out: Output) -> Cost:
    """Time, memory and synchronizations of so many steps."""
    clean()
    forget_peak()
    cost = Cost(task.name, method, before=peak())
    model = task.model().train()
    optimizer = optimizer_of(method, model, task)
    cost.parameters = sum(map(torch.numel, model.parameters()))
    batches, is_emsa = task.generator(0), isinstance(optimizer, EMSA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(sizes.warm if is_emsa else min(10, sizes.warm)):
            step_of(optimizer, passes(task, model, optimizer, task.draw(batches)))
        cost.every = optimizer.param_groups[0]["refresh_every"] if is_emsa else 0
        _time(cost, task, model, optimizer, batches, sizes.timed if is_emsa else sizes.rival)
    _look(cost, task, model, optimizer, batches, 20 if is_emsa else 4, out)
    _write_cost(cost, out)
    return cost


def _time(cost: Cost, task: Task, model: nn.Module, optimizer: Any, batches: Generator, count: int) -> None:
    """Device and host time of each step, never waiting; in the last quarter some refreshes are forced."""
    marks, kinds, host = Marks(task.device), [], []
    wait()
    for n in range(count):
        batch = task.draw(batches)
        kinds.append(kind_of(optimizer))
        began = time.perf_counter()
        marks.mark()
        loss = passes(task, model, optimizer, batch)
        marks.mark()
        between = time.perf_counter()
        if isinstance(optimizer, EMSA) and n >= count * 3 // 4 and n % 4 == 0:
            force(optimizer)
        step_of(optimizer, loss)
        marks.mark()
        host.append((1e3 * (time.perf_counter() - began), 1e3 * (time.perf_counter() - between)))
    spans = marks.milliseconds()
    for n, kind in enumerate(kinds):
        forward, step = spans[3 * n], spans[3 * n + 1]
        cost.steps.setdefault(kind, []).append((forward + step, step, *host[n]))


def _look(cost: Cost, task: Task, model: nn.Module, optimizer: Any, batches: Generator, count: int,
          out: Output) -> None:
    """Synchronizations and peak memory by kind of step; the last but few are forced to refresh."""
    found = {kind: Syncs() for kind in KINDS}
    steps: Counter[str] = Counter()
    for n in range(count):
        batch, kind = task.draw(batches), kind_of(optimizer)
        syncs = found[kind]
        steps[kind] += 1
        wait()
        forget_peak()
        with syncs.counting():
            syncs.phase = "passes"
            loss = passes(task, model, optimizer, batch)
            syncs.phase = "step"
            if isinstance(optimizer, EMSA) and n in (count - 4, count - 2):
                force(optimizer)
            step_of(optimizer, loss)
        cost.peaks[kind] = max(cost.peaks.get(kind, 0.0), peak())
    for kind, number_of in steps.items():
        cost.syncs[kind] = found[kind].sites.total() / number_of
        out.rows("syncs.csv", ("network", "method", "kind", "phase", "line", "torch", "per_step"), [
            (cost.network, cost.method, kind, *site, times / number_of)
            for site, times in found[kind].sites.most_common()])


def _write_cost(cost: Cost, out: Output) -> None:
    out.rows("steps.csv", STEP_COLUMNS, [
        ("cost", cost.network, cost.method, "", kind, *(f"{ms:.4f}" for ms in step))
        for kind, steps in cost.steps.items() for step in steps])
    out.rows("costs.csv", _COLUMNS, [
        (cost.network, cost.method, cost.parameters, kind, len(cost.steps[kind]),
         *(cost.median(which, kind) for which in range(4)), cost.steady(), cost.every, cost.peaks.get(kind),
         cost.before, cost.syncs.get(kind))
        for kind in KINDS if kind in cost.steps])
    line = ", ".join(
        f"{kind} {cost.median(0, kind):.2f} ms (step {cost.median(1, kind):.2f}, syncs "
        f"{cost.syncs.get(kind, math.nan):.3g})" for kind in KINDS if kind in cost.steps)
    out.say(f"  {cost.network}, {cost.method}: {line}")
    out.results["costs"].append(vars(cost) | {
        "steps": {kind: len(steps) for kind, steps in cost.steps.items()},
        "median": {kind: [cost.median(n, kind) for n in range(4)] for kind in cost.steps},
        "steady": cost.steady()})


@contextmanager
def tf32(method: str) -> Iterator[None]:
    """Products of float32 matrices in TF32, for the method that says so."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if "TF32" in method else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def costs_of(task: Task, sizes: Sizes, deadline: Deadline, out: Output) -> dict[str, Cost]:
    """All methods on one network, what is most wanted first."""
    found: dict[str, Cost] = {}
    methods = ["passes", "AdamW", "EMSA", "Muon", "EMSA, TF32"]
    for method in methods[: 4 if sizes is TINY else 5]:
        with part(out, f"cost of {method} on {task.name}"), tf32(method):
            deadline.need(_SECONDS if method in ("passes", "EMSA") else _SECONDS / 3, PROFILE_SECONDS)
            found[method] = measure(task, method, sizes, out)
    return found
