"""Several optimizers on the same task side by side, an iteration each in turn, so that a noisy machine is fair to all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, log
from typing import Any

import torch
from torch import nn

from pontryagin.experiments.bench.methods import Method
from pontryagin.experiments.bench.tasks import Batch, Task
from pontryagin.experiments.stopwatch import Stopwatch
from pontryagin.problem import NonFiniteError

SMOOTHING = 0.9
"""Memory of the running mean of the batch losses, bias-corrected: the train loss that is reported."""


@dataclass
class Racer:
    """One optimizer with its own copy of the model and the batches. loss: smoothed; history: after each iteration."""

    method: Method
    rate: float
    model: nn.Module
    optimizer: Any
    batches: Iterator[Batch]
    watch: Stopwatch = field(default_factory=Stopwatch)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    stopped: str = ""
    _mean: float = 0.0

    def step(self, task: Task, factor: float) -> None:
        """One iteration at `factor` times the rate; only this is timed. A loss that is not finite ends the racer."""
        batch = next(self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        self.watch.start()
        loss = task.loss(self.model, batch)
        self.optimizer.zero_grad()
        loss.backward()
        try:
            self.optimizer.step()
        except NonFiniteError as error:
            self.stopped = str(error)
        self.seconds.append(self.watch.pause())
        value = loss.item()
        if not isfinite(value):
            self.stopped = self.stopped or "the loss is not finite"
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * value
        self.losses.append(self._mean / (1 - SMOOTHING ** (len(self.losses) + 1)))


def racer(task: Task, method: Method, rate: float, seed: int) -> Racer:
    """At the start: the same initial weights and batches for every method."""
    model = task.model(seed)
    return Racer(method, rate, model, method.make(model, rate), task.batches(seed))


def race(task: Task, racers: Sequence[Racer], iterations: int, score_every: int,
         advance: Callable[[int, float | None], None]) -> None:
    """All racers through `iterations` iterations, the rate falling linearly to zero."""
    for number in range(1, iterations + 1):
        for one in racers:
            if not one.stopped:
                one.step(task, 1 - (number - 1) / iterations)
                if score_every and (number % score_every == 0 or number == iterations):
                    one.scores[number] = _score(task, one.model)
        advance(number, racers[0].losses[-1])


def badness(losses: Sequence[float], iterations: int) -> float:
    """What tuning minimizes: the mean of log(smoothed train loss) over the run; infinite if it stopped early."""
    if len(losses) < iterations or not all(isfinite(loss) and loss > 0 for loss in losses):
        return float("inf")
    return sum(log(loss) for loss in losses) / len(losses)


@torch.no_grad()
def _score(task: Task, model: nn.Module) -> float:
    model.eval()
    result = task.score(model)
    model.train()
    return result
