"""One run of a method on a network: what it is, how it is made, and what it leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import torch
from torch.linalg import LinAlgError

from pontryagin.bench.panel.network import Work
from pontryagin.bench.racers import METHODS
from pontryagin.run.race import Run
from pontryagin.run.trainer import Batch

CHECKPOINTS = (1 / 128, 1 / 64, 1 / 32, *(n / 16 for n in range(1, 17)))
"""Shares of a run after which its loss is measured; 1/4, 1/2 and 1 are among them."""
APPLIED, LEAST, SPAN = 6, 2, 0.01
"""How often in a run the yardstick is applied; each time as many iterations at least, and so many seconds."""
OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"fused": True},
    "soap": {"max_precondition_dim": 512},  # beyond, the images' 784 pixels cost it nearly all of its seconds
}
"""Beside what is tuned: the fastest that torch and the package have on a CPU."""


@dataclass(frozen=True)
class Trial:
    """What a run depends on. warmup: the share of it in which the rate rises linearly from 0."""

    network: str
    method: str
    seed: int
    rate: float
    decay: float
    warmup: float
    iterations: int


@dataclass(frozen=True)
class Outcome:
    """ended: complete, or why not. seconds: process time of all iterations. yardstick: seconds of an
    iteration of AdamW on the same network, measured in between, the unit in which runs of different hours
    are compared. points: (iterations, seconds, loss), the start first."""

    ended: str
    seconds: float
    yardstick: float
    points: tuple[tuple[int, float, float], ...]

    @property
    def loss(self) -> float:
        """At the end; infinite for a run that failed."""
        return self.points[-1][2] if self.ended == "complete" else float("inf")


def warmed(share: float, iterations: int, done: float) -> float:
    """The schedule: linear to 0, after a rise over that share of the iterations."""
    return (1 - done) * min(1.0, (done + 1 / iterations) / share if share else 1.0)


def started(trial: Trial, work: Work) -> Run:
    """A trial before its first iteration: weights and batches are those of its seed."""
    options = dict(OPTIONS.get(trial.method, {}))
    if trial.method != "emsa":
        options["weight_decay"] = trial.decay
    if trial.method == "schedule-free":
        options["warmup"] = round(trial.warmup * trial.iterations)
    return Run(METHODS[trial.method], trial.seed, trial.rate, work.workload(trial.seed), trial.iterations,
               schedule=partial(warmed, trial.warmup, trial.iterations), options=options, clock=process_time)


def train(trial: Trial, work: Work, advance: Callable[[int, float | None], None]) -> Outcome:
    """To its end, a loss that is not finite included."""
    torch.set_flush_denormal(True)
    try:
        return _trained(trial, work, advance)
    finally:
        torch.set_flush_denormal(False)


def _trained(trial: Trial, work: Work, advance: Callable[[int, float | None], None]) -> Outcome:
    """Denormal numbers, which a processor takes a hundred times as long for, are 0: momentum of dead units is
    made of them."""
    run, samples = started(trial, work), work.evaluation()
    stops = {max(1, round(share * trial.iterations)) for share in CHECKPOINTS}
    points = [(0, 0.0, evaluated(run, work, samples))]
    yardstick = Yardstick(trial, work)
    every = max(1, trial.iterations // APPLIED)
    while not run.ended:
        if run.iteration % every == 0:
            yardstick.apply()
        if not _iterated(run):
            break
        if run.iteration in stops:
            points.append((run.iteration, run.watch.seconds, evaluated(run, work, samples)))
            advance(run.iteration, points[-1][2])
            if not abs(points[-1][2]) < float("inf"):
                run.ended = f"not finite: the loss at iteration {run.iteration}"
    return Outcome(run.ended, run.watch.seconds, yardstick.seconds, tuple(points))


def _iterated(run: Run) -> bool:
    """Whether an iteration was done; a factorization that fails is a failure of the run, as a loss that is
    not finite."""
    with run.generators():
        try:
            return run.iterate() is not None
        except LinAlgError as error:
            run.ended = f"not finite: {error}"
            return False


def evaluated(run: Run, work: Work, samples: Batch) -> float:
    """The loss of the method's result so far: of its averages, where it keeps some."""
    with run.trainer.evaluated() as model:
        model.eval()
        loss = work.loss(model, samples)
        model.train()
    return loss


class Yardstick:
    """AdamW on the same network, an iteration's process time beside which others are measured."""

    def __init__(self, trial: Trial, work: Work) -> None:
        self._work = work
        self._trial = Trial(trial.network, "adamw", trial.seed, 1e-4, 0.0, 0.0, 10**9)
        self._run: Run | None = None
        self._found: list[float] = []

    def apply(self) -> None:
        """Some iterations, the first of which warms the caches."""
        self._run = self._run or started(self._trial, self._work)
        with self._run.generators():
            self._run.iterate()
            found: list[float] = []
            while len(found) < LEAST or sum(found) < SPAN:
                before = self._run.watch.seconds
                self._run.iterate()
                found.append(self._run.watch.seconds - before)
        self._found += found

    @property
    def seconds(self) -> float:
        """The median."""
        return median(self._found)


