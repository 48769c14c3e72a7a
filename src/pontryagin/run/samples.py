"""Inputs and targets by their rows, in memory or of a torch Dataset."""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from pontryagin.run.errors import ExperimentError
from pontryagin.run.trainer import Batch
from pontryagin.run.user_code import cause, kind_of

__all__ = ["Batch", "DatasetSamples", "Samples", "TensorSamples", "hold_out", "is_dense", "pair_of",
           "read_by", "samples_of"]


class Samples(Protocol):
    """Inputs and targets that are asked for by row."""

    def __len__(self) -> int:
        """How many."""

    def rows(self, rows: Tensor) -> Batch:
        """The inputs and targets of these rows, on the run's device, floating point numbers in its dtype."""

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Samples":
        """The same there."""


@dataclass(frozen=True)
class TensorSamples:
    """inputs (sample, ...) and targets (sample, ...), all in memory."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        shapes = tuple(self.inputs.shape), tuple(self.targets.shape)
        if not all(shapes) or shapes[0][0] != shapes[1][0] or not shapes[0][0]:
            raise ExperimentError("expected as many targets as inputs, at least one, found shapes "
                                  f"{shapes[0]} and {shapes[1]}")

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, rows: Tensor) -> Batch:
        rows = rows.to(self.inputs.device)
        return self.inputs[rows], self.targets[rows]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "TensorSamples":
        return TensorSamples(_moved(self.inputs, device, dtype), _moved(self.targets, device, dtype))


@dataclass(frozen=True)
class DatasetSamples:
    """A torch Dataset of (input, target).

    collate: of a list of its items, a batch: (inputs, targets) or a dict with `labels`; by default torch's,
    of items that are such pairs or dicts. workers: processes that read (reading.py); with 0 this one does,
    and random transforms draw from the generators of the run.
    """

    dataset: Dataset[Any]
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    collate: Callable[[list[Any]], Any] | None = None
    workers: int = 0

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)
        return len(self.dataset)

    @property
    def name(self) -> str:
        """Of the data set, for errors."""
        return type(self.dataset.dataset if isinstance(self.dataset, Subset) else self.dataset).__name__

    def rows(self, rows: Tensor) -> Batch:
        return self.moved(self.read(rows))

    def moved(self, batch: Batch) -> Batch:
        """A batch that has been read, on the run's device and in its dtype."""
        return _moved(batch[0], self.device, self.dtype), _moved(batch[1], self.device, self.dtype)

    def read(self, rows: Tensor) -> Batch:
        """The batch of these rows as the data set gives it. Raises ExperimentError."""
        row, items = 0, []
        try:
            for row in rows.tolist():
                item = self.dataset[row]
                items.append(item if self.collate else pair_of(item))
        except IndexError as error:
            raise ExperimentError(f"{self.name}, sample {row}: {cause(error)}; its length is said to be "
                                  f"{len(self)}: is it shorter?") from error
        except ExperimentError as error:
            raise ExperimentError(f"{self.name}, sample {row}: {error}") from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise ExperimentError(f"{self.name}, sample {row}: {cause(error)}") from error
        inputs, targets = self._stacked(items)
        if not all(isinstance(one, Tensor) and is_dense(one) for one in tree_leaves((inputs, targets))):
            raise ExperimentError(f"{self.name}: expected inputs and targets that are dense tensors, numpy "
                                  f"arrays or numbers, found {kind_of(items[0])}")
        return inputs, class_indices(targets)

    def _stacked(self, items: list[Any]) -> tuple[Any, Any]:
        """One batch of them."""
        if self.collate is None:
            try:
                inputs, targets = default_collate(items)
            except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
                raise ExperimentError(f"{self.name}: expected samples of equal shapes that torch can stack, "
                                      f"found {kind_of(items[0])} first ({cause(error)}); or give a function "
                                      "of yours by --collate") from error
            return inputs, targets
        try:
            inputs, targets = pair_of(self.collate(items))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            reason = str(error) if isinstance(error, ExperimentError) else cause(error)
            raise ExperimentError(f"--collate, of {len(items)} samples of {self.name}: {reason}") from error
        if not isinstance(targets, Tensor) or not targets.ndim or len(targets) != len(items):
            raise ExperimentError(f"--collate, of {len(items)} samples of {self.name}: expected a tensor of "
                                  f"as many targets, found {kind_of(targets)}")
        return inputs, targets

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "DatasetSamples":
        return replace(self, device=device, dtype=dtype)


def read_by(samples: Samples, workers: int) -> Samples:
    """The same, read by so many processes if it is a data set."""
    return replace(samples, workers=workers) if isinstance(samples, DatasetSamples) else samples


def hold_out(samples: Samples, share: float) -> tuple[Samples, Samples]:
    """The rest and a share of the samples, at random but always the same ones. Raises ExperimentError."""
    held = round(share * len(samples))
    if not 0 < share < 1 or not 0 < held < len(samples):
        raise ExperimentError(f"--validation: expected a share between 0 and 1 that takes some of the "
                              f"{len(samples)} training samples and leaves some, as 0.1, found {share}")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    rows = order[held:].sort().values, order[:held].sort().values
    if isinstance(samples, TensorSamples):
        return tuple(TensorSamples(*samples.rows(part)) for part in rows)  # type: ignore[return-value]
    assert isinstance(samples, DatasetSamples)
    return tuple(replace(samples, dataset=Subset(samples.dataset, part.tolist()))  # type: ignore[return-value]
                 for part in rows)


def samples_of(data: tuple[Tensor, Tensor] | Dataset[Any],
               collate: Callable[[list[Any]], Any] | None = None) -> Samples:
    """Of a pair of tensors, a TensorDataset of two, or any Dataset with a length. collate: see
    DatasetSamples. Raises ExperimentError."""
    if collate is not None:
        if isinstance(data, tuple):
            raise ExperimentError("--collate: these data are tensors in memory, which are indexed and not "
                                  "collated: leave it out, or return a torch Dataset")
        return DatasetSamples(data, collate=collate)
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return TensorSamples(*data.tensors)
    return TensorSamples(*data) if isinstance(data, tuple) else DatasetSamples(data)


def pair_of(item: Any) -> tuple[Any, Any]:
    """Input and target of a sample: a pair, or a dict with a target under `labels` or `label`, the rest of
    which is the input. Raises ExperimentError."""
    if isinstance(item, Mapping):
        key = next((key for key in _LABELS if key in item), None)
        if key is not None and len(item) > 1:
            return {name: value for name, value in item.items() if name != key}, item[key]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise ExperimentError("expected a pair (input, target), or a dict of inputs with a target under "
                              f"`labels`; found {kind_of(item)}: write such a pair in __getitem__")
    return item[0], item[1]


_LABELS = ("labels", "label")
"""Of data sets of Hugging Face."""


def is_dense(values: Tensor) -> bool:
    """Real numbers, all of them there."""
    return values.layout == torch.strided and not (values.is_nested or values.is_meta or values.is_complex())


def class_indices(targets: Tensor) -> Tensor:
    """Targets of whole numbers of any kind in one that torch's losses take; others as they are."""
    taken = targets.is_floating_point() or targets.dtype in (torch.int64, torch.uint8)
    return targets if taken else targets.long()


def _moved(values: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    """A tensor, or several within dicts and tuples."""
    return tree_map(lambda one: one.to(device, dtype) if one.is_floating_point() else one.to(device), values)


