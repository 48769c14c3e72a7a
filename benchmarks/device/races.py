"""Methods over equally many steps, on the clock."""

import math
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.device.costs import Cost
from benchmarks.device.measures import Marks, wait
from benchmarks.device.methods import RATES, kind_of, optimizer_of, passes, step_of
from benchmarks.device.output import PROFILE_SECONDS, STEP_COLUMNS, Deadline, Output, part
from benchmarks.device.tasks import TINY, Sizes, Task

_POINTS = 20
"""Evaluations of a run."""
_WARM_UP = 0.05
"""Part of the steps over which the rates of AdamW and Muon rise."""
_SECONDS = 45.0
"""The least that a race is begun with."""
_COLUMNS = ("network", "method", "rate", "step", "seconds", "held", "train", "accuracy", "batches")


@dataclass
class Race:
    """One run: its curve, a point each of step, seconds, held-out loss, train loss, accuracy."""

    network: str
    method: str
    rate: float | None
    steps: int
    points: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        return self.method if self.rate is None else f"{self.method} {self.rate:g}"

    def end(self, column: int = 2) -> float:
        """The last value of a column; infinite for a run that did not end."""
        complete = self.points and self.points[-1][0] == self.steps and math.isfinite(self.points[-1][column])
        return self.points[-1][column] if complete else math.inf

    def reaches(self, target: float, column: int = 2, clock: int = 1) -> float:
        """Seconds (clock 0: steps) at which a loss has fallen to a target, interpolated; NaN if never."""
        for before, after in zip(self.points, self.points[1:], strict=False):
            if after[column] <= target:
                fall = before[column] - after[column]
                part_of = min(max((before[column] - target) / fall, 0.0), 1.0) if fall > 0 else 1.0
                return before[clock] + part_of * (after[clock] - before[clock])
        return math.nan


def rate_at(step: int, steps: int, warm: bool) -> float:
    """Relative to the largest: linear to 0, for rivals after a short linear rise."""
    rise = min((step + 1) / max(_WARM_UP * steps, 1.0), 1.0) if warm else 1.0
    return rise * (1 - step / steps)


def run_race(race: Race, task: Task, deadline: Deadline, out: Output) -> None:
    """Train from the beginning; only the steps are timed."""
    method, steps, kinds = race.method, race.steps, []
    model = task.model(seed=1).train()
    optimizer = optimizer_of(method, model, task, race.rate)
    bases = [group["lr"] for group in optimizer.param_groups]
    batches, seconds = task.generator(1), 0.0
    ends = sorted({max(round(steps * (n + 1) / _POINTS), 1) for n in range(_POINTS)})
    _point(race, task, model, optimizer, 0, 0.0, [], out)
    for first, last in zip([0, *ends], ends, strict=False):
        if deadline.left(PROFILE_SECONDS / 2) < 0:
            race.note = f"stopped after {first} steps: no time left"
            break
        losses, spans = [], Marks(task.device)
        wait()
        began = time.perf_counter()
        spans.mark()
        for step in range(first, last):
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = base * rate_at(step, steps, method != "EMSA")
            kinds.append(kind_of(optimizer))
            losses.append(passes(task, model, optimizer, task.draw(batches)))
            step_of(optimizer, losses[-1])
            spans.mark()
        wait()
        seconds += time.perf_counter() - began
        spans_ms = spans.milliseconds()
        out.rows("steps.csv", STEP_COLUMNS, [
            ("race", task.name, method, race.rate or "", kind, f"{ms:.4f}", "", "", "")
            for kind, ms in zip(kinds[first:], spans_ms, strict=True)])
        _share(race, kinds[first:], spans_ms)
        _point(race, task, model, optimizer, last, seconds, losses, out)
        if not math.isfinite(race.points[-1][2]):
            race.note = "not finite"
            break


def _share(race: Race, kinds: list[str], spans: list[float]) -> None:
    """Add up the device's ms of steps by kind, and their numbers."""
    for kind, ms in zip(kinds, spans, strict=True):
        race.shares[kind] = race.shares.get(kind, 0.0) + ms
        race.shares[f"{kind} steps"] = race.shares.get(f"{kind} steps", 0.0) + 1


def _point(race: Race, task: Task, model: nn.Module, optimizer: Any, step: int, seconds: float,
           losses: list[Tensor], out: Output) -> None:
    """Evaluate, untimed."""
    found = task.evaluate(model, optimizer)
    batch_loss = torch.stack(losses).mean().item() if losses else math.nan
    race.points.append((step, seconds, found["held"], found["train"], found["accuracy"]))
    out.rows("curves.csv", _COLUMNS, [(
        race.network, race.method, race.rate or "", step, f"{seconds:.4f}", found["held"], found["train"],
        found["accuracy"], batch_loss)])


def entries(rates: int) -> list[tuple[str, float | None]]:
    """Methods and so many of their rates, what is most wanted first."""
    rivals = [(method, grid[n]) for n in range(rates) for method, grid in RATES.items()]
    return [("EMSA", None), *rivals]


def races_of(task: Task, costs: dict[str, Cost], share: float, sizes: Sizes, deadline: Deadline,
             out: Output) -> list[Race]:
    """All methods over equally many steps, so many that a share of the time left is used."""
    deadline.need(_SECONDS if sizes is not TINY else 0.0, PROFILE_SECONDS)
    seconds = share * deadline.left(PROFILE_SECONDS)
    runs = entries(1 if sizes is TINY else 3)
    known = {method: cost.steady() / 1e3 for method, cost in costs.items()}
    adam = known.get("AdamW", 0.05)
    each = sum(known.get(method, 1.5 * adam) for method, _ in runs)
    evaluation = len(runs) * (_POINTS + 1) * sizes.held * 1.3 * known.get("passes", adam)
    steps = min(max(int(0.92 * (seconds - evaluation) / each), 100), sizes.race)
    out.say(f"race on {task.name}: {steps} steps each, {seconds:.0f} s for all")
    races: list[Race] = []
    for _ in range(3):  # what is made once for all is not to be timed
        passes(task, task.model(), None, task.draw(task.generator(2)))
    for method, rate in runs:
        with part(out, f"race of {method} {rate or ''} on {task.name}"):
            if sizes is not TINY:
                deadline.need(5.0, PROFILE_SECONDS)
            race = Race(task.name, method, rate, steps)
            races.append(race)
            out.results["races"].append(vars(race))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run_race(race, task, deadline, out)
            out.say(f"  {race.name}: held {race.points[-1][2]:.4f}, train {race.points[-1][3]:.4f}, "
                    f"{race.points[-1][1]:.1f} s {race.note}")
    return races
