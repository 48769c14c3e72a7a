"""The state of stages that have owners: what is kept in which process, shown, saved and loaded.

What is the owner's alone, and what lies in parts as its parameter does, is saved as DTensors, so that a
checkpoint of torch.distributed.checkpoint is the same for any number of processes, and one process reads it
too.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pontryagin.distributed.places import Place, from_owners
from pontryagin.optim.ownership import Ownership
from pontryagin.optim.share import Saved
from pontryagin.optim.state import AverageState, StageState, States
from pontryagin.trajectory.local import whole

_TOLD = ("refreshes", "rows", "samples", "kind")
"""Of the state of a stage, what every process knows."""


class OwnedState:
    """Averages, and state_dict."""

    def __init__(self, owners: Ownership) -> None:
        self._owners, self._ranks, self._spread = owners, owners.ranks, owners.spread

    def keeps_average(self, parameter: Tensor) -> bool:
        """Parts everywhere, what lies whole everywhere at the owner."""
        whole_here = not self._owners.is_cut(parameter) and self._owners.of(parameter) is not None
        return not whole_here or self._owners.is_ours(parameter)

    def _shown(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        return [parameter for parameter in parameters
                if not self._owners.is_cut(parameter) and self._owners.of(parameter) is not None]

    def bring_averages(self, parameters: Sequence[nn.Parameter], states: States) -> None:
        """From their owners to all."""
        ours = self._shown(parameters)
        has = [self._owners.is_ours(parameter) and "mean_control" in states.get(parameter, {})
               for parameter in ours]
        known = [any(each) for each in zip(*self._ranks.gather(has), strict=True)]
        ours = [parameter for parameter, is_known in zip(ours, known, strict=True) if is_known]
        if not ours:
            return
        layouts = [AverageState.layout(parameter)["mean_control"] for parameter in ours]
        places = [Place(shape, dtype, None, self._owners.owners[id(parameter)])
                  for parameter, (shape, dtype) in zip(ours, layouts, strict=True)]
        own = [states[parameter]["mean_control"] for parameter in ours if self._owners.is_ours(parameter)]
        for parameter, mean in zip(ours, from_owners(self._ranks, places, own).wait(), strict=True):
            if not self._owners.is_ours(parameter):
                states[parameter]["mean_control"] = mean

    def drop_averages(self, parameters: Sequence[nn.Parameter], states: States) -> None:
        """Each owner keeps its own."""
        for parameter in self._shown(parameters):
            if not self._owners.is_ours(parameter):
                states.get(parameter, {}).pop("mean_control", None)

    def _is_owners(self, parameter: nn.Parameter, name: str) -> bool:
        """Whether an entry of a state is the owner's alone."""
        if self._owners.of(parameter) is None or name in _TOLD:
            return False
        average = not self._owners.is_cut(parameter) and name in ("mean_control", "last_control")
        return average or name in StageState.names()

    def saved(self, state: Saved, parameters: Sequence[nn.Parameter]) -> Saved:
        """The same for any number of processes: what is the owner's is cut along its longest axis, what lies
        in parts as the parameter is; as DTensors, which torch.distributed.checkpoint brings together."""
        own = [{name: (tuple(value.shape), value.dtype) for name, value in state.get(number, {}).items()
                if self._owners.is_ours(parameter) and self._is_owners(parameter, name)}
               for number, parameter in enumerate(parameters)]
        found = self._ranks.gather(own)
        result: Saved = {}
        for number, parameter in enumerate(parameters):
            entries = {name: self._as_lies(parameter, value) for name, value in state.get(number, {}).items()
                       if not self._is_owners(parameter, name)}
            if self._owners.of(parameter) is not None:
                forms = found[self._owners.owners[id(parameter)]][number]
                entries |= self._cut(self._owners.owners[id(parameter)], forms, state.get(number, {}))
            if entries:
                result[number] = entries
        return result

    def _as_lies(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        axis = self._spread.axis(parameter)
        if axis is None or value.ndim == 0:
            return value
        shape = (*parameter.shape, *value.shape[parameter.ndim:])
        return self._spread.spread(value, shape, axis)

    def _cut(self, owner: int, forms: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
             entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        places = [Place(torch.Size(shape), dtype, shape.index(max(shape)) if shape else None, owner)
                  for shape, dtype in forms.values()]
        if not places:
            return {}
        wholes = [entries[name] for name in forms] if owner == self._ranks.rank else []
        parts = from_owners(self._ranks, places, wholes).wait()
        return {name: part if place.axis is None else self._spread.spread(part, place.shape, place.axis)
                for name, place, part in zip(forms, places, parts, strict=True)}

    def taken(self, parameter: nn.Parameter, name: str, value: Tensor) -> Tensor | None:
        """Of the owner's everything there and nothing elsewhere; else the part that lies here."""
        value = whole(value).detach()
        if self._is_owners(parameter, name):
            return value.clone() if self._owners.is_ours(parameter) else None
        if value.ndim == 0 or not self._owners.is_cut(parameter):
            return value.clone()
        place = Place(value.shape, value.dtype, self._spread.axis(parameter), 0)
        return place.part(value, self._ranks.rank, self._ranks.size).clone()
