"""Data of users, as they have them: looked at before any work."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from pontryagin.run.errors import ExperimentError
from pontryagin.run.samples import class_indices, is_dense, pair_of
from pontryagin.run.user_code import call, kind_of

_MOST = 2**31
"""Samples of a data set."""
Part = tuple[Tensor, Tensor] | Dataset[Any]
"""(inputs, targets), the first axis of both the samples, or a torch Dataset of such pairs."""


@dataclass(frozen=True)
class Splits:
    """Data for training and testing, and for validating if there is such a part."""

    train: Part
    test: Part
    validation: Part | None = None

    def shape(self) -> tuple[int, ...]:
        """Of one input, without the sample axis."""
        found = tuple(_example(self.train)[0].shape)
        if not prod(found):
            raise ExperimentError("a ready model takes one tensor with some entries as its input: name a "
                                  "model of yours")
        return found

    def outputs(self) -> int | None:
        """Classes, or components of a target, that a model should give; None when only a pass tells."""
        targets = _all_targets(self.train)
        if targets is None:
            return None
        return prod(targets.shape[1:]) if targets.is_floating_point() else int(targets.max()) + 1


def some_targets(part: Part) -> Tensor:
    """All targets, or that of the first sample where they are known one by one. Raises ExperimentError."""
    targets = _all_targets(part)
    if targets is not None:
        return targets
    target = _example(part)[1]
    try:
        return torch.as_tensor(target).unsqueeze(0)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExperimentError("the target of sample 0: expected a number, a class or an array of them, found "
                              f"{kind_of(target)}") from error


def splits_of(found: Any, what: str) -> Splits:
    """What a user's function returns, looked at. what: its name, for errors. Raises ExperimentError."""
    keys = ("train", "test", "validation")
    if isinstance(found, Splits):
        found = (found.train, found.test, found.validation)
    if isinstance(found, Mapping):
        if not {"train", "test"} <= found.keys() <= set(keys):
            raise ExperimentError(f"{what}: expected the keys train, test and perhaps validation, found "
                                  f"{', '.join(map(str, found))}")
        found = tuple(found.get(key) for key in keys)
    if not isinstance(found, (tuple, list)) or len(found) not in (2, 3):
        raise ExperimentError(f"{what}: expected (train, test) or (train, test, validation), each a torch "
                              f"Dataset or a pair of tensors (inputs, targets); found {kind_of(found)}")
    parts = [None if key == "validation" and part is None else _part(part, f"{what}, {key}")
             for key, part in zip(keys, found, strict=False)]
    return Splits(*parts)  # type: ignore[arg-type]


def _part(part: Any, what: str) -> Part:
    if isinstance(part, (tuple, list)) and len(part) == 2 and all(isinstance(one, (Tensor, np.ndarray))
                                                                  for one in part):
        inputs, targets = _dense(part[0], what), class_indices(_dense(part[1], what))
        if not inputs.ndim or not targets.ndim or not len(inputs) or len(inputs) != len(targets):
            raise ExperimentError(f"{what}: expected as many targets as inputs, at least one; found shapes "
                                  f"{tuple(inputs.shape)} and {tuple(targets.shape)}")
        for name, values in (("inputs", inputs), ("targets", targets)):
            if values.is_floating_point() and not values.isfinite().all():
                raise ExperimentError(f"{what}: the {name} hold NaN or infinite values; remove such samples")
        return inputs, targets
    if not isinstance(part, Dataset) or not isinstance(part, Sized):
        raise ExperimentError(f"{what}: expected a torch Dataset with a length or a pair of tensors (inputs, "
                              f"targets), found {kind_of(part)}")
    length = call(lambda: len(part), {}, f"{what}, its length")
    if length > _MOST:
        raise ExperimentError(f"{what}: the {type(part).__name__} says that it has {length:,} samples: "
                              f"expected at most {_MOST:,}, which can be put into a random order")
    if not length:
        raise ExperimentError(f"{what}: the {type(part).__name__} is empty")
    _example(part, what)
    return part


def _example(part: Part, what: str = "data") -> tuple[Tensor, Any]:
    """Input and target of the first sample."""
    if isinstance(part, tuple):
        return part[0][0], part[1][0]
    item = call(lambda: part[0], {}, f"{what}, sample 0")
    inputs, target = call(lambda: pair_of(item), {}, f"{what}, sample 0")
    return _as_tensor(inputs), target


def _as_tensor(value: Any) -> Tensor:
    """An input, which may be an array or a number; an empty tensor for several, whose shape only the model
    knows."""
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        return torch.as_tensor(value)
    return value if isinstance(value, Tensor) else torch.empty(0)


def _dense(values: Any, what: str) -> Tensor:
    """As a tensor with all its entries. Raises ExperimentError."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            raise ExperimentError(f"{what}: expected arrays of numbers, found one of {values.dtype}")
        kind = np.dtype(f"{values.dtype.kind}{min(values.dtype.itemsize, 8)}")  # of this machine's bytes
        values = torch.from_numpy(np.ascontiguousarray(values, kind))
    if not is_dense(values):
        layout = "nested" if values.is_nested else values.layout
        raise ExperimentError(f"{what}: expected dense tensors of real numbers, found a {layout} tensor of "
                              f"{values.dtype}; write .to_dense() or .real")
    return values


def _all_targets(part: Part) -> Tensor | None:
    """None where they are known sample by sample alone."""
    if isinstance(part, TensorDataset) and len(part.tensors) == 2:
        return part.tensors[1]
    return part[1] if isinstance(part, tuple) else None
