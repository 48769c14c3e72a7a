"""Several optimizers on the same task side by side, an iteration each in turn, so that a noisy machine is fair to all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, log

import torch
from torch import nn

from pontryagin.experiments.bench.tasks import Task
from pontryagin.experiments.stopwatch import Stopwatch
from pontryagin.experiments.train.methods import Method
from pontryagin.experiments.train.trainer import Batch, Trainer
from pontryagin.problem import NonFiniteError

SMOOTHING = 0.9
"""Memory of the running mean of the batch losses, bias-corrected: the train loss that is reported."""


@dataclass
class Racer:
    """One optimizer with its own copy of the model and the batches. loss: smoothed; history: after each iteration."""

    method: Method
    rate: float
    trainer: Trainer
    batches: Iterator[Batch]
    watch: Stopwatch = field(default_factory=Stopwatch)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    stopped: str = ""
    _mean: float = 0.0

    def step(self, factor: float) -> None:
        """One iteration at `factor` times the rate; only this is timed. What is not finite ends the racer."""
        batch = next(self.batches)
        self.trainer.set_factor(factor)
        value = float("nan")
        self.watch.start()
        try:
            value = self.trainer.step(batch).loss
        except NonFiniteError as error:
            self.stopped = str(error)
        self.seconds.append(self.watch.pause())
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * value
        self.losses.append(self._mean / (1 - SMOOTHING ** (len(self.losses) + 1)))


def racer(task: Task, method: Method, rate: float, seed: int) -> Racer:
    """At the start: the same initial weights and batches for every method."""
    return Racer(method, rate, method.trainer(task.model(seed), task.objective, rate), task.batches(seed))


def race(task: Task, racers: Sequence[Racer], iterations: int, score_every: int,
         advance: Callable[[int, float | None], None]) -> None:
    """All racers through `iterations` iterations, the rate falling linearly to zero."""
    for number in range(1, iterations + 1):
        for one in racers:
            if not one.stopped:
                one.step(1 - (number - 1) / iterations)
                if score_every and (number % score_every == 0 or number == iterations):
                    one.scores[number] = _score(task, one.trainer.model)
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
