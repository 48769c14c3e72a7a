"""Loss and accuracy of a network on held data, and when a run is evaluated."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from pontryagin.problem.ignored import IGNORED
from pontryagin.run.errors import ExperimentError
from pontryagin.run.objective import Objective
from pontryagin.run.race import Run
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Samples, Task
from pontryagin.run.trainer import StepRecord, output_of

_CHUNKS = {"cpu": 100}
"""Samples that are propagated at once, elsewhere 1000: on a CPU so few that activations stay in caches."""


@dataclass(frozen=True)
class Scores:
    """loss: mean over samples; accuracy: share of right predictions, None where nothing is classified. Both
    of targets that count: not of class indices -100."""

    loss: float
    accuracy: float | None


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples, rows: Tensor, objective: Objective) -> Scores:
    """Of these rows, in eval mode; train mode is set back. One synchronization with the device.

    Raises ExperimentError when all targets are ignored.
    """
    was_training = model.training
    model.eval()
    losses, right, counts = [], [], []
    for chunk in rows.split(chunk_size(model)):
        inputs, targets = samples.rows(chunk)
        output = output_of(model, inputs)
        counts.append(objective.counted(targets).to(output.device))
        losses.append(objective.mean(output, targets).double() * counts[-1])
        found = objective.right(output, targets)
        if found is not None:
            right.append(found)
    model.train(was_training)
    sums = torch.stack([torch.stack(each).sum() for each in (losses, counts, right) if each]).tolist()
    if not sums[1]:
        raise ExperimentError(f"all targets of the {len(rows)} evaluated samples are {IGNORED}, which stands "
                              "for none: expected some class indices")
    return Scores(sums[0] / sums[1], sums[2] / sums[1] if right else None)


def chunk_size(model: nn.Module) -> int:
    """How many samples to propagate at once."""
    return _CHUNKS.get(next(model.parameters()).device.type, 1000)


@dataclass(frozen=True)
class Point:
    """A run after `iteration` iterations. step: the last one's record; train, test: if evaluated."""

    iteration: int
    epoch: float
    evaluations: int
    seconds: float
    step: StepRecord | None
    train: Scores | None
    test: Scores | None


class Evaluation:
    """The evaluations of the runs of a training: `settings.evaluations` times evenly over each, rounded up to
    whole iterations, and at its start and end; on the same samples for all."""

    def __init__(self, task: Task, settings: RunSettings) -> None:
        self.task, self.settings = task, settings
        self.batches = len(task.train) // settings.batch_size
        self._train_rows = _spread_rows(len(task.train), settings.train_samples)
        self._test_rows = torch.arange(len(task.test))

    def start(self, run: Run) -> Point:
        """Before training."""
        return self._point(run, None, True)

    def after(self, run: Run, step: StepRecord | None) -> Point:
        """After an iteration, evaluated where that is due and where the run ends: complete, not finite, or
        here because it reached a target."""
        point = self._point(run, step, bool(run.ended) or self._is_due(run))
        if step is not None and self._reaches_target(point):
            run.ended = "target"
        return point

    def _is_due(self, run: Run) -> bool:
        """Also where a limit ends the run early."""
        wanted = self.settings.evaluations or max(10, ceil(run.horizon / self.batches))
        before, now = ((run.iteration - back) * wanted // run.length for back in (1, 0))
        return now > before

    def _reaches_target(self, point: Point) -> bool:
        accuracy, loss = self.settings.target_accuracy, self.settings.target_loss
        return (accuracy is not None and point.test is not None
                and (point.test.accuracy or 0.0) >= accuracy) or (
            loss is not None and point.train is not None and point.train.loss <= loss)

    def _point(self, run: Run, step: StepRecord | None, evaluated: bool) -> Point:
        train = test = None
        if evaluated:
            with run.trainer.evaluated() as model:
                train = evaluate(model, self.task.train, self._train_rows, self.task.objective)
                test = evaluate(model, self.task.test, self._test_rows, self.task.objective)
        return Point(run.iteration, run.iteration / self.batches, run.evaluations, run.watch.seconds, step,
                     train, test)


def _spread_rows(samples: int, wanted: int) -> Tensor:
    """`wanted` rows, evenly over the samples; all where there are fewer."""
    return torch.arange(min(samples, wanted)) * samples // min(samples, wanted)
