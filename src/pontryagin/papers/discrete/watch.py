"""What discrete weights do in training, looked at between the timed steps: in the set, always; flips and
zeros, often."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pontryagin.problem.admissible import MatrixSet
from pontryagin.run.baselines import inside
from pontryagin.run.callbacks import Callback
from pontryagin.run.errors import ExperimentError
from pontryagin.run.evaluation import Point
from pontryagin.run.files import Table
from pontryagin.run.race import Run
from pontryagin.run.tables import read_table

COLUMNS = ("method", "seed", "iteration", "epoch", "stage", "flips", "nonzero")
ROWS = 500
"""At most so many iterations of a run are recorded."""


class WeightWatcher(Callback):
    """Checks after every iteration, with exact equality, that every weight lies in its set, and writes
    weights.csv.

    sets: by method; methods without one are not watched. flips: the share of the entries of a stage that one
    iteration changed; nonzero: the share of entries that are not 0.
    """

    def __init__(self, out: Path, sets: Mapping[str, MatrixSet]) -> None:
        self._path, self._sets = out / "weights.csv", sets
        self._table: Table | None = None
        self._before: list[Tensor] = []

    def begin(self, runs: Sequence[Run]) -> None:
        """Keep the rows of earlier seeds and of these runs up to where they go on."""
        if self._table is None:
            kept = _kept(self._path, {(run.method.name, run.seed): run.iteration for run in runs})
            self._table = Table(self._path, COLUMNS)
            self._table.add_all(kept)
        for run in runs:
            self._check(run)

    def before(self, run: Run) -> None:
        """An iteration."""
        due = run.method.name in self._sets and run.iteration % max(1, run.horizon // ROWS) == 0
        self._before = [weight.clone() for weight in _weights(run).values()] if due else []

    def after(self, run: Run, point: Point) -> None:
        """The iteration. Raises ExperimentError when a weight has left its set."""
        self._check(run)
        if not self._before or self._table is None:
            return
        for (name, weight), old in zip(_weights(run).items(), self._before, strict=True):
            flips = int(torch.count_nonzero(weight - old)) / weight.numel()
            nonzero = int(torch.count_nonzero(weight)) / weight.numel()
            self._table.add(run.method.name, run.seed, point.iteration, point.epoch, name, flips, nonzero)
        if point.train is not None:
            self._table.flush()

    def end(self) -> None:
        """Close the table."""
        if self._table is not None:
            self._table.__exit__(None, None, None)
            self._table = None

    def _check(self, run: Run) -> None:
        admissible = self._sets.get(run.method.name)
        if admissible is None:
            return
        for name, weight in _weights(run).items():
            if not inside(weight, admissible):
                raise ExperimentError(f"{run.name}: {name} has left {admissible!r} in iteration "
                                      f"{run.iteration}: this is a defect of the method")


def nonzero_share(model: nn.Module) -> float:
    """Of all weights of a model: the parameters with two axes or more."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    return sum(int(torch.count_nonzero(weight)) for weight in weights) / sum(weight.numel()
                                                                             for weight in weights)


def _weights(run: Run) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in run.trainer.model.named_parameters() if value.ndim > 1}


def _kept(path: Path, begun: Mapping[tuple[str, int], int]) -> list[tuple[object, ...]]:
    table = read_table(path, ("method", "stage"), ("seed", "iteration", "epoch", "flips", "nonzero"),
                       optional=True)
    rows = zip(*(table[column].tolist() for column in COLUMNS), strict=True)
    whole = [(method, int(seed), int(iteration), *rest) for method, seed, iteration, *rest in rows]
    last = min((seed for _, seed in begun), default=0)
    return [row for row in whole if row[1] < last or row[2] <= begun.get((row[0], row[1]), -1)]
