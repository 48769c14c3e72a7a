"""One method with one seed: where it is, and how it goes on."""

import warnings
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from pontryagin.problem import NonFiniteError
from pontryagin.run import randomness
from pontryagin.run.errors import ExperimentError
from pontryagin.run.evaluation import Scores, evaluate, spread_rows
from pontryagin.run.methods import Method
from pontryagin.run.processes import present
from pontryagin.run.sampler import Sampler
from pontryagin.run.schedule import SCHEDULES
from pontryagin.run.settings import RunSettings
from pontryagin.run.stopwatch import Stopwatch
from pontryagin.run.task import Task
from pontryagin.run.trainer import OptimizerTrainer, StepRecord

SMOOTHING = 0.95
"""Memory of the running mean of batch losses that progress shows, bias-corrected."""


@dataclass(frozen=True)
class Point:
    """A job after `iteration` iterations. step: of that iteration, None at the start; train, test: where it
    was evaluated."""

    iteration: int
    epoch: float
    evaluations: int
    seconds: float
    step: StepRecord | None
    train: Scores | None
    test: Scores | None


class Job:
    """Built from the seed alone; the global random generators are left as they were. random: their states for
    this job, which the run sets whenever it is the job's turn."""

    def __init__(self, task: Task, settings: RunSettings, method: Method, seed: int, rate: float) -> None:
        self.task, self.settings, self.method, self.seed, self.rate = task, settings, method, seed, rate
        before = randomness.capture()
        randomness.seed_all(seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.trainer = method.trainer(task.build(), task.objective, rate,
                                          settings.options.get(method.name))
        if present().size > 1 and not isinstance(self.trainer, OptimizerTrainer):
            raise ExperimentError(f"{method.name} is trained by one process alone: start it without torchrun")
        self.notes = [str(warning.message) for warning in caught]
        self.random = randomness.capture()
        randomness.restore(before)
        self.sampler = Sampler(len(task.train), settings.batch_size, seed, present().rank, present().size)
        self.horizon = settings.iterations or settings.epochs * self.sampler.batches
        self.length = min(self.horizon, settings.limits.get(method.name, self.horizon))
        self.iteration, self.evaluations, self.ended = 0, 0, ""
        self.watch, self._mean, self._epoch = Stopwatch(), 0.0, (-1, torch.empty(0))
        self._device = settings.place()[0]
        self._train_rows = spread_rows(len(task.train), settings.train_samples)
        self._test_rows = spread_rows(len(task.test), None)

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.method.name}-seed{self.seed}"

    @property
    def smoothed_loss(self) -> float | None:
        """The running mean of batch losses."""
        return self._mean / (1 - SMOOTHING**self.iteration) if self.iteration else None

    @property
    def samples_per_second(self) -> float:
        """While it trains."""
        return self.iteration * self.settings.batch_size / self.watch.seconds if self.watch.seconds else 0.0

    def start(self) -> Point:
        """The evaluation before training."""
        return self._point(None, True)

    def iterate(self) -> StepRecord | None:
        """One iteration; None when what is not finite ended the job in the place of it."""
        batch = self.task.train.rows(self._rows())
        self.trainer.set_factor(SCHEDULES[self.settings.schedule](self.iteration / self.horizon))
        self.watch.start()
        try:
            record = self.trainer.step(batch)
        except NonFiniteError as error:
            self.ended = f"not finite: {error}"
            return None
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self.watch.pause()
        self.iteration += 1
        self.evaluations += record.evaluations
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * record.loss
        if self.iteration >= self.length:
            self.ended = "complete"
        return record

    def advance(self) -> Point:
        """One iteration, evaluated where that is due and where the job ends."""
        record = self.iterate()
        point = self._point(record, bool(self.ended) or self._is_evaluated())
        if record is not None and self._reaches_target(point):
            self.ended = "target"
        return point

    def state_dict(self) -> dict[str, Any]:
        """All that the job goes on from, in tensors and plain types."""
        return {"method": self.method.name, "seed": self.seed, "rate": self.rate, "iteration": self.iteration,
                "evaluations": self.evaluations, "seconds": self.watch.seconds, "mean": self._mean,
                "ended": self.ended,
                "model": self.trainer.model.state_dict(), "trainer": self.trainer.state_dict(),
                "random": self.random}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.trainer.model.load_state_dict(state["model"])
        self.trainer.load_state_dict(state["trainer"])
        self.random, self.iteration, self.evaluations = state["random"], state["iteration"], state["evaluations"]
        self.watch.seconds, self._mean, self.ended = state["seconds"], state["mean"], state["ended"]

    def _rows(self) -> Tensor:
        """Of the coming batch."""
        epoch, position = divmod(self.iteration, self.sampler.batches)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self.sampler.epoch(epoch)
        return self._epoch[1][position]

    def _is_evaluated(self) -> bool:
        """`evaluations` times evenly over the job, rounded up to whole iterations: also where a limit ends it
        early."""
        wanted = self.settings.evaluations or max(10, ceil(self.horizon / self.sampler.batches))
        before, now = ((self.iteration - back) * wanted // self.length for back in (1, 0))
        return now > before

    def _reaches_target(self, point: Point) -> bool:
        accuracy, loss = self.settings.target_accuracy, self.settings.target_loss
        return (accuracy is not None and point.test is not None
                and (point.test.accuracy or 0.0) >= accuracy) or (
            loss is not None and point.train is not None and point.train.loss <= loss)

    def _point(self, step: StepRecord | None, evaluated: bool) -> Point:
        train = test = None
        if evaluated:
            with self.trainer.evaluated() as model:
                train = evaluate(model, self.task.train, self._train_rows, self.task.objective)
                test = evaluate(model, self.task.test, self._test_rows, self.task.objective)
        return Point(self.iteration, self.iteration / self.sampler.batches, self.evaluations,
                     self.watch.seconds, step, train, test)
