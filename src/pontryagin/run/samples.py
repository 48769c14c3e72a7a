"""Samples of a data set by their rows: tensors in memory, or any torch Dataset."""

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate

from pontryagin.run.errors import ExperimentError
from pontryagin.run.trainer import Batch


class Samples(Protocol):
    """Inputs and targets that are asked for by row."""

    def __len__(self) -> int:
        """How many."""

    def rows(self, rows: Tensor) -> Batch:
        """The inputs and targets of these rows, where the run is: on its device, floating point numbers in
        its dtype."""

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
    """A torch Dataset of (input, target), read in this process, so that random transforms go on bitwise after
    a resume."""

    dataset: Dataset[Any]
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)
        return len(self.dataset)

    def rows(self, rows: Tensor) -> Batch:
        items = [self.dataset[row] for row in rows.tolist()]
        try:
            inputs, targets = default_collate(items)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ExperimentError(f"{type(self.dataset).__name__}: expected items (input, target) of equal "
                                  f"shapes that torch can stack, found {_shape(items[0])} first ({error})") from error
        if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
            raise ExperimentError(f"{type(self.dataset).__name__}: expected items (input, target) of tensors "
                                  f"or numbers, found {_shape(items[0])}")
        return _moved(inputs, self.device, self.dtype), _moved(targets, self.device, self.dtype)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "DatasetSamples":
        return DatasetSamples(self.dataset, device, dtype)


def samples_of(data: tuple[Tensor, Tensor] | Dataset[Any]) -> Samples:
    """Of a pair of tensors, a TensorDataset of two, or any Dataset with a length."""
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return TensorSamples(*data.tensors)
    return TensorSamples(*data) if isinstance(data, tuple) else DatasetSamples(data)


def _moved(values: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    return values.to(device, dtype) if values.is_floating_point() else values.to(device)


def _shape(item: object) -> str:
    if isinstance(item, (tuple, list)):
        return "(" + ", ".join(_shape(part) for part in item) + ")"
    return f"a tensor {tuple(item.shape)}" if isinstance(item, Tensor) else type(item).__name__
