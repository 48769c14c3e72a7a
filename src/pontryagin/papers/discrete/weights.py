"""Discrete weights during and after training: in the set, always; flips and zeros, often; and a real-valued
network rounded at the end."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from pontryagin.problem.admissible import DiscreteSet, MatrixSet
from pontryagin.run.baselines import inside, rounded
from pontryagin.run.callbacks import Callback
from pontryagin.run.errors import ExperimentError
from pontryagin.run.evaluation import Point
from pontryagin.run.files import Table
from pontryagin.run.race import Run
from pontryagin.run.samples import Samples
from pontryagin.run.tables import read_table

COLUMNS = ("method", "seed", "iteration", "epoch", "stage", "flips", "density")
ROWS = 500
"""At most so many iterations of a run are recorded."""
CHUNK, CHUNKS = 500, 20
"""Samples in a pass of recalibration, and passes."""


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters with two axes or more, by name."""
    return {name: value.detach() for name, value in model.named_parameters() if value.ndim > 1}


def density_of(model: nn.Module) -> float:
    """Of all its weights."""
    weights = weights_of(model).values()
    return sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)


class WeightWatcher(Callback):
    """Checks after every iteration, with exact equality, that every weight lies in its set, and writes
    weights.csv.

    sets: by method; methods without one are not watched. flips: the share of the entries of a stage that one
    iteration changed; density: the share of entries that are not 0.
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
        self._before = [weight.clone() for weight in weights_of(run.trainer.model).values()] if due else []

    def after(self, run: Run, point: Point) -> None:
        """The iteration. Raises ExperimentError when a weight has left its set."""
        self._check(run)
        if not self._before or self._table is None:
            return
        for (name, weight), old in zip(weights_of(run.trainer.model).items(), self._before, strict=True):
            shares = (int(entries.count_nonzero()) / weight.numel() for entries in (weight - old, weight))
            self._table.add(run.method.name, run.seed, point.iteration, point.epoch, name, *shares)
        if point.train is not None:
            self._table.flush()

    def end(self) -> None:
        """Close the table."""
        if self._table is not None:
            self._table.__exit__(None, None, None)
            self._table = None

    def _check(self, run: Run) -> None:
        admissible = self._sets.get(run.method.name)
        for name, weight in weights_of(run.trainer.model).items():
            if admissible is not None and not inside(weight, admissible):
                raise ExperimentError(f"{run.name}: {name} has left {admissible!r} in iteration "
                                      f"{run.iteration}: this is a defect of the method")


def _kept(path: Path, begun: Mapping[tuple[str, int], int]) -> list[tuple[object, ...]]:
    table = read_table(path, ("method", "stage"), ("seed", "iteration", "epoch", "flips", "density"),
                       optional=True)
    rows = zip(*(table[column].tolist() for column in COLUMNS), strict=True)
    whole = [(method, int(seed), int(iteration), *rest) for method, seed, iteration, *rest in rows]
    last = min((seed for _, seed in begun), default=0)
    return [row for row in whole if row[1] < last or row[2] <= begun.get((row[0], row[1]), -1)]


def rounded_model(model: nn.Module, admissible: DiscreteSet) -> nn.Module:
    """A copy whose weights are rounded: with a scale per row to the nearest, else by sign or threshold as
    BinaryConnect."""
    copied = copy.deepcopy(model)
    for weight in weights_of(copied).values():
        weight.copy_(rounded(weight, admissible))
    return copied


def recalibrated(model: nn.Module, samples: Samples) -> nn.Module:
    """The model itself, its normalizations' running statistics averaged anew over 10000 training samples,
    evenly chosen, in chunks of about CHUNK rows that each spread over all of them."""
    rows = torch.arange(len(samples))
    if len(samples) >= CHUNK * CHUNKS:
        rows = torch.arange(CHUNK * CHUNKS) * len(samples) // (CHUNK * CHUNKS)
    count = max(1, len(rows) // CHUNK)
    update_bn((samples.rows(rows[first::count])[0] for first in range(count)), model)
    return model.eval()
