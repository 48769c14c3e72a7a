"""The optimizers of the benchmark side by side on a task, and what is measured between their timed steps."""

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import nn

from pontryagin.bench.tasks import Task
from pontryagin.run.methods import BENCH_ONLY, Method
from pontryagin.run.methods import METHODS as TRAINED
from pontryagin.run.progress import Advance
from pontryagin.run.race import Run, Workload, race

METHODS = {name: TRAINED[name] for name in (
    "emsa", "adam", "adam-averaged", "adamw", "schedule-free", "sgd-momentum", "muon", "soap")} | BENCH_ONLY
LOSS_EVERY, LOSS_BATCHES, LOSS_SEED = 5, 10, 999
"""The train loss is measured every so many iterations, outside the timed region, on so many fixed training
batches."""


class Racer(Run):
    """seconds: after each iteration, of the method alone; losses, scores: after the iterations that they were
    measured at."""

    def __init__(self, task: Task, method: Method, rate: float, seed: int, horizon: int) -> None:
        batches = task.batches(seed)
        workload = Workload(task.build, task.objective, lambda _: next(batches), task.batch_size)
        super().__init__(method, seed, rate, workload, horizon)
        self.seconds: list[float] = []
        self.losses: dict[int, float] = {}
        self.scores: dict[int, float] = {}

    @property
    def stopped(self) -> str:
        """Why it ended early, else empty."""
        return "" if self.ended == "complete" else self.ended.removeprefix("not finite: ")


def run_race(task: Task, racers: Sequence[Racer], score_every: int, advance: Advance) -> None:
    """All racers to their end, an iteration each in turn, the rate falling linearly to zero."""
    batches = list(islice(task.batches(LOSS_SEED), LOSS_BATCHES))

    def mean_loss(model: nn.Module) -> float:
        return sum(task.objective.mean(model(inputs), targets).item()
                   for inputs, targets in batches) / len(batches)

    def turn(one: Racer) -> bool:
        stepped = one.iterate() is not None
        one.seconds.append(one.watch.seconds)
        number = one.iteration
        if stepped and (number % LOSS_EVERY == 0 or one.ended):
            one.losses[number] = _evaluated(one, mean_loss)
        if stepped and score_every and (number % score_every == 0 or one.ended):
            one.scores[number] = _evaluated(one, task.score)
        if one is racers[0]:
            advance(number, next(reversed(one.losses.values()), None))
        return True

    race(racers, turn)


@torch.no_grad()
def _evaluated(one: Racer, measure: Callable[[nn.Module], float]) -> float:
    with one.trainer.evaluated() as model:
        model.eval()
        result = measure(model)
        model.train()
    return result


