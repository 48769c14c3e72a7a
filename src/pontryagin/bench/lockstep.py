"""Several optimizers on the same task side by side, an iteration each in turn, so that a noisy machine is
fair to all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite, log

import torch
from torch import nn

from pontryagin.bench.tasks import Task
from pontryagin.problem import NonFiniteError
from pontryagin.run.environment import Stopwatch
from pontryagin.run.methods import Method
from pontryagin.run.trainer import Batch, Trainer

LOSS_EVERY, LOSS_BATCHES, LOSS_SEED = 5, 10, 999
"""The train loss is measured every so many iterations, outside the timed region, on so many fixed training
batches."""


@dataclass
class Racer:
    """One optimizer with its own copy of the model and the batches.

    seconds: after each iteration, of the method alone; losses, scores: after the iterations that they were
    measured at.
    """

    method: Method
    rate: float
    trainer: Trainer
    batches: Iterator[Batch]
    watch: Stopwatch = field(default_factory=Stopwatch)
    seconds: list[float] = field(default_factory=list)
    losses: dict[int, float] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    stopped: str = ""

    def step(self, factor: float) -> None:
        """One iteration at `factor` times the rate; only this is timed. What is not finite ends the racer."""
        batch = next(self.batches)
        self.trainer.set_factor(factor)
        self.watch.start()
        try:
            self.trainer.step(batch)
        except NonFiniteError as error:
            self.stopped = str(error)
        self.seconds.append(self.watch.pause())


def racer(task: Task, method: Method, rate: float, seed: int) -> Racer:
    """At the start: the same initial weights and batches for every method."""
    return Racer(method, rate, method.trainer(task.model(seed), task.objective, rate), task.batches(seed))


def race(task: Task, racers: Sequence[Racer], iterations: int, score_every: int,
         advance: Callable[[int, float | None], None]) -> None:
    """All racers through `iterations` iterations, the rate falling linearly to zero."""
    batches = list(islice(task.batches(LOSS_SEED), LOSS_BATCHES))
    for number in range(1, iterations + 1):
        for one in racers:
            if one.stopped:
                continue
            one.step(1 - (number - 1) / iterations)
            if not one.stopped and (number % LOSS_EVERY == 0 or number == iterations):
                one.losses[number] = _evaluated(one.trainer, lambda model: _mean_loss(task, model, batches))
            if score_every and (number % score_every == 0 or number == iterations):
                one.scores[number] = _evaluated(one.trainer, task.score)
        advance(number, next(reversed(racers[0].losses.values()), None))


def badness(losses: Mapping[int, float], iterations: int) -> float:
    """What tuning minimizes: the mean of log(train loss) over the run; infinite if it stopped early."""
    if iterations not in losses or not all(isfinite(loss) and loss > 0 for loss in losses.values()):
        return float("inf")
    return sum(log(loss) for loss in losses.values()) / len(losses)


def _mean_loss(task: Task, model: nn.Module, batches: Sequence[Batch]) -> float:
    return sum(task.objective.mean(model(inputs), targets).item()
               for inputs, targets in batches) / len(batches)


@torch.no_grad()
def _evaluated(trainer: Trainer, measure: Callable[[nn.Module], float]) -> float:
    with trainer.evaluated() as model:
        model.eval()
        result = measure(model)
        model.train()
    return result
