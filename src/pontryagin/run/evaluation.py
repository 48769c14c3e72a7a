"""Loss and accuracy of a network on held data, and when a run is evaluated."""

from dataclasses import dataclass
from math import ceil, isfinite

import torch
from torch import Tensor, nn

from pontryagin.problem.ignored import IGNORED
from pontryagin.run.errors import ExperimentError
from pontryagin.run.metric import Metric
from pontryagin.run.objective import Objective
from pontryagin.run.race import Run
from pontryagin.run.reading import in_turn
from pontryagin.run.samples import Samples
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task
from pontryagin.run.trainer import StepRecord, output_of

_CHUNKS = {"cpu": 100}
"""Samples that are propagated at once, elsewhere 1000: on a CPU so few that activations stay in caches."""


@dataclass(frozen=True)
class Scores:
    """loss: mean over samples; accuracy: share of right predictions, None where nothing is classified. Both
    of targets that count: not of class indices -100. metric: the user's own, if there is one. ignored: share
    of the targets that do not count."""

    loss: float
    accuracy: float | None
    metric: float | None = None
    ignored: float = 0.0


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples, rows: Tensor, objective: Objective,
             metric: Metric | None = None) -> Scores:
    """Of these rows, in eval mode; train mode is set back. One synchronization with the device, or one more
    for a metric.

    Raises ExperimentError when all targets are ignored.
    """
    was_training = model.training
    model.eval()
    losses, right, counts, whole = [], [], [], []
    for inputs, targets in in_turn(samples, rows.split(chunk_size(model))):
        output = output_of(model, inputs)
        counts.append(objective.counted(targets).to(output.device))
        losses.append(objective.mean(output, targets).double() * counts[-1])
        found = objective.right(output, targets)
        if found is not None:
            right.append(found)
        if metric is not None:
            whole.append((output, targets))
    model.train(was_training)
    sums = torch.stack([torch.stack(each).sum() for each in (losses, counts, right) if each]).tolist()
    if not sums[1]:
        raise ExperimentError(f"all targets of the {len(rows)} evaluated samples are {IGNORED}, which stands "
                              "for none: expected some class indices")
    return Scores(sums[0] / sums[1], sums[2] / sums[1] if right else None,
                  metric(*map(torch.cat, zip(*whole, strict=True))) if metric else None,
                  max(0.0, 1 - sums[1] / len(rows)))


def chunk_size(model: nn.Module) -> int:
    """How many samples to propagate at once."""
    return _CHUNKS.get(next(model.parameters()).device.type, 1000)


def left_words(part: str, ignored: float) -> str:
    """That some targets do not count; empty where all do."""
    return (f"{part}: {100 * ignored:.3g} % of the targets are {IGNORED} and do not count"
            if ignored > 1e-9 else "")  # no rounding of shares of samples


@dataclass(frozen=True)
class Point:
    """A run after `iteration` iterations. step: the last one's record; train, test, validation: if
    evaluated."""

    iteration: int
    epoch: float
    evaluations: int
    seconds: float
    step: StepRecord | None
    train: Scores | None
    test: Scores | None
    validation: Scores | None = None

    @property
    def held(self) -> Scores | None:
        """Of the samples by which a run is judged while it goes on: for validation, else for testing."""
        return self.validation or self.test


class Evaluation:
    """The evaluations of the runs of a training: `settings.evaluations` times evenly over each, rounded up to
    whole iterations, and at its start and end; on the same samples for all."""

    def __init__(self, task: Task, settings: RunSettings) -> None:
        self.task, self.settings = task, settings
        self.batches = len(task.train) // settings.batch_size
        self._rows = {name: torch.arange(len(samples)) for name, samples in task.parts().items()} | {
            "train": _spread_rows(len(task.train), settings.train_samples)}

    def start(self, run: Run) -> Point:
        """Before training."""
        point = self._point(run, None, True)
        self._is_exhausted(run, point)
        return point

    def after(self, run: Run, step: StepRecord | None) -> Point:
        """After an iteration, evaluated where that is due and where the run ends: complete, not finite, or
        here because it reached a target, or because patience has ended."""
        point = self._point(run, step, bool(run.ended) or self._is_due(run))
        if step is not None and self._reaches_target(point):
            run.ended = "target"
        elif step is not None and self._is_exhausted(run, point) and not run.ended:
            run.ended = "patience"
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

    def _is_exhausted(self, run: Run, point: Point) -> bool:
        """Whether as many evaluations as patience has, one after the other, were none the best so far."""
        if self.settings.patience is None or point.held is None:
            return False
        value = -point.held.loss if point.held.metric is None else point.held.metric
        if isfinite(value) and (run.best is None or value > run.best):
            run.best, run.waited = value, 0
        else:
            run.waited += 1
        return run.waited >= self.settings.patience

    def _point(self, run: Run, step: StepRecord | None, evaluated: bool) -> Point:
        found: dict[str, Scores] = {}
        if evaluated:
            with run.trainer.evaluated() as model:
                for name, samples in self.task.parts().items():
                    found[name] = evaluate(model, samples, self._rows[name], self.task.objective,
                                           self.task.metric)
        return Point(run.iteration, run.iteration / self.batches, run.evaluations, run.watch.seconds, step,
                     *map(found.get, ("train", "test", "validation")))


def _spread_rows(samples: int, wanted: int) -> Tensor:
    """`wanted` rows, evenly over the samples; all where there are fewer."""
    return torch.arange(min(samples, wanted)) * samples // min(samples, wanted)
