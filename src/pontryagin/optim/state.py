"""What lasts in the optimizer: tensors by name, for each parameter, in one place.

torch keeps them as dictionaries, so that state_dict() is plain; a record gives typed access to one, and says
which entries there may be, of what shape and type.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from pontryagin.affine.precision import extended, wide
from pontryagin.optim.numbers import Numbers

Entries = dict[str, Tensor]
Layout = dict[str, tuple[torch.Size, torch.dtype]]
"""Shapes and dtypes of entries."""
States = Any
"""The optimizer's state: a mapping from parameters to entries that makes them where there are none."""
_NUMBER = torch.Size(())


class Record:
    """Entries as attributes: those that the class declares, and no others."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries

    def __init_subclass__(cls) -> None:
        for name in cls.names():
            setattr(cls, name, _entry(name))

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of all its entries."""
        return tuple(name for name in cls.__annotations__ if name.islower())

    def drop(self) -> None:
        """Forget all of its entries."""
        for name in self.names():
            self.entries.pop(name, None)


def _entry(name: str) -> property:
    def put(record: Record, value: Numbers) -> None:
        record.entries[name] = value

    return property(lambda record: record.entries[name], put)


class StageState(Record):
    """Of the weight of an affine stage; stacked along the group axis, that of a group of equal stages; as
    arrays, that of all stages of a step.

    mean: s, (group, input). moment: A_c where it is known whole, (group, input, input), or frequencies,
    (group, input). basis, values, tail: A_c as basis diag(values) basis^T + tail elsewhere, (group, input,
    rank), (group, rank), (group). refreshes: of the moments. rows: of the first batch, over the larger
    of inputs and outputs (certainty.py). samples: of the first batch. input_unit: what basis and values
    measure the inputs in (own_units.py), (group, input), of those that are known whole.
    output_moment: C (whitening.py), (group, output, output). output_refreshes: the batches in it, (group).
    along_inputs: mean squares of what G has along directions (directions.py), (group, input).
    velocity, bias_velocity: momentum, like dW and db. square, square_weight, long_square: running means of
    the squared change of each output, (group, output), and the weight of the first. velocity_weight: what
    momentum adds up to. size, size_weight, long_size: running means of |G|^2. peak: the largest
    long mean. reach: the largest norm that a change may have.
    kind: which of the alternatives the stage turned out to be.
    """

    mean: Tensor
    moment: Tensor
    basis: Tensor
    values: Tensor
    tail: Tensor
    refreshes: Tensor
    rows: Tensor
    samples: Tensor
    input_unit: Tensor
    output_moment: Tensor
    output_refreshes: Tensor
    along_inputs: Tensor
    square: Tensor
    square_weight: Tensor
    long_square: Tensor
    velocity_weight: Tensor
    size: Tensor
    size_weight: Tensor
    long_size: Tensor
    peak: Tensor
    reach: Tensor
    velocity: Tensor
    bias_velocity: Tensor
    kind: Tensor

    RUNNING: ClassVar = ("square", "square_weight", "long_square", "velocity_weight", "size", "size_weight",
                         "long_size", "peak", "reach")
    """Numbers that the steps renew, beside the momentum."""
    OF_OUTPUTS: ClassVar = ("output_moment", "output_refreshes")
    """Of stages with several outputs, but not too many."""
    CHANGED_BY_LOOKS: ClassVar = ("mean", "moment", "basis", "values", "tail", "refreshes", "rows", "samples",
                                  "input_unit", "square", "long_square", "along_inputs")
    """In place."""

    @property
    def has_moments(self) -> bool:
        """Whether any inputs have entered."""
        return "refreshes" in self and self.refreshes.item() > 0

    @property
    def has_units(self) -> bool:
        """Whether each input has a unit of its own."""
        return "input_unit" in self and bool((self.input_unit != 1).any())

    def leave(self) -> None:
        """What it shared with other stages is its own again, so that theirs is not kept for its sake."""
        for name in self.names():
            value = self.entries.get(name)
            if value is not None and value.untyped_storage().nbytes() > value.numel() * value.element_size():
                self.entries[name] = value.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def layout(weight: nn.Parameter, shape: torch.Size, rank: int, one_hot: bool) -> Layout:
        """Of the entries of a stage with W of (group, output, input)."""
        groups, outputs, inputs = shape
        like, squares = wide(weight.dtype), extended(weight)
        shapes: dict[str, tuple[int, ...]] = {
            "mean": (groups, inputs), "moment": (groups, inputs) if one_hot else (groups, inputs, inputs),
            "basis": (groups, inputs, rank), "values": (groups, rank), "tail": (groups,),
            "input_unit": (groups, inputs),
            "output_moment": (groups, outputs, outputs), "output_refreshes": (groups,),
            "velocity_weight": (groups,), "velocity": (groups, outputs, inputs),
            "bias_velocity": (groups, outputs)}
        running = {name: (groups, outputs) if name in ("square", "long_square") else (groups,)
                   for name in StageState.RUNNING}
        running["along_inputs"] = groups, inputs
        found = {name: (torch.Size(size), squares) for name, size in running.items()}
        found |= {name: (torch.Size(size), like) for name, size in shapes.items()}
        return found | dict.fromkeys(("refreshes", "rows", "samples", "kind"), (_NUMBER, torch.float32))

    @staticmethod
    def needed(is_exact: bool, one_hot: bool, is_whitened: bool, has_directions: bool) -> set[str]:
        """The entries of a state that has any of them."""
        metric = {"moment"} if is_exact or one_hot else set()
        metric |= {"input_unit"} if is_exact and not one_hot else set()
        metric |= set() if one_hot else {"basis", "values", "tail"}
        metric |= set(StageState.OF_OUTPUTS) if is_whitened else set()
        metric |= {"along_inputs"} if has_directions else set()
        return {"mean", "refreshes", "rows", "samples", "velocity", *StageState.RUNNING} | metric


class AdamWState(Record):
    """Of a parameter that AdamW trains: both moments like it (pairs of real numbers for complex ones), the
    number of its steps, and what the moments are in units of."""

    first: Tensor
    second: Tensor
    updates: Tensor
    unit: Tensor

    @staticmethod
    def layout(parameter: Tensor) -> Layout:
        """Of its entries."""
        real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
        number = (_NUMBER, torch.float32)
        return {**dict.fromkeys(("first", "second"), (real.shape, wide(real.dtype))), "updates": number,
                "unit": number}


class AverageState(Record):
    """Of any parameter: the average of its values, in float32 at least, and the last value while the average
    is shown. with_weight: of a bias that moves with its weight."""

    mean_control: Tensor
    last_control: Tensor
    with_weight: Tensor

    @staticmethod
    def layout(parameter: Tensor) -> Layout:
        """Of its entries."""
        return {"mean_control": (parameter.shape, wide(parameter.dtype)),
                "last_control": (parameter.shape, parameter.dtype), "with_weight": (_NUMBER, torch.bool)}


LIKE_PARAMETERS = {"mean_control", "last_control", "first", "second"}
"""Entries that lie where the parameter does, also of a scalar one."""


class Undo:
    """The states as they were before a look, should the step that follows not be finite. What a look changes
    is copied, all of a kind in one go."""

    def __init__(self, states: Iterable[Entries]) -> None:
        self._before = [(entries, dict(entries)) for entries in states]
        kinds: dict[tuple[torch.dtype, torch.device], tuple[list[tuple[Entries, str]], list[Tensor]]] = {}
        for _, old in self._before:
            for name in StageState.CHANGED_BY_LOOKS:
                if (value := old.get(name)) is not None:
                    places, values = kinds.setdefault((value.dtype, value.device), ([], []))
                    places.append((old, name))
                    values.append(value)
        self._copies = [(places, values, _flatten_dense_tensors(values)) for places, values in kinds.values()]

    def restore(self) -> None:
        """All as it was."""
        for places, values, copies in self._copies:
            for (old, name), part in zip(places, _unflatten_dense_tensors(copies, values), strict=True):
                old[name] = part.clone()
        for entries, old in self._before:
            entries.clear()
            entries.update(old)
