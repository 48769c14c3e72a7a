"""What a saved state must look like before it is loaded, and how it is taken over."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.errors import ProblemError
from pontryagin.optim.settings import check_group
from pontryagin.optim.state import LIKE_PARAMETERS, Layout, States

LayoutOf = Callable[[nn.Parameter, Mapping[str, Any]], Layout]
Taken = Callable[[nn.Parameter, str, Tensor], Tensor | None]
"""What is kept here of an entry."""
NeededOf = Callable[[nn.Parameter, Mapping[str, Any]], Iterable[str]]


def check_saved(saved: Mapping[str, Any], groups: list[dict[str, Any]], settings: Iterable[str],
                layout_of: LayoutOf, needed_of: NeededOf, name_of: Callable[[nn.Parameter], str]) -> None:
    """Raise ProblemError for the state of another optimizer, of another number of parameters, of other
    shapes, or without the controls."""
    if not isinstance(saved, Mapping) or not {"state", "param_groups"} <= saved.keys():
        found = sorted(map(str, saved)) if isinstance(saved, Mapping) else type(saved).__name__
        raise ProblemError("EMSA: expected the dictionary that state_dict() gives, with state and "
                           f"param_groups, found {found}")
    if not all(isinstance(group, Mapping) and "params" in group for group in saved["param_groups"]):
        raise ProblemError("EMSA: the saved state has groups without params: it is not what state_dict() "
                           "gives")
    lengths, own = ([len(group["params"]) for group in each] for each in (saved["param_groups"], groups))
    if lengths != own:
        raise ProblemError(f"EMSA: the saved state has groups of {lengths} parameters, this optimizer has "
                           f"{own}: make it from the same model and groups")
    missing = sorted({key for group in saved["param_groups"] for key in set(settings) - group.keys()})
    if missing:
        raise ProblemError("EMSA: the saved state is that of another optimizer, or of an older version: its "
                           f"groups have no {', '.join(missing)}")
    for group in saved["param_groups"]:
        check_group(group)
    for parameter, number in numbered(saved, groups):
        entries, name = saved["state"].get(number, {}), name_of(parameter)
        _check_entries(entries, layout_of(parameter, entries), name)
        absent = sorted(set(needed_of(parameter, entries)) - set(entries))
        if absent:
            raise ProblemError(f"EMSA: the saved state of {name} has no {', '.join(absent)}: it is not "
                               "whole, or that of other settings")
    shown = any(group.get("averaged") for group in saved["param_groups"])
    averaged = [state for state in saved["state"].values() if "mean_control" in state]
    if shown and averaged and not any("last_control" in state for state in averaged):
        raise ProblemError("this state was saved while the model held the averages, and the controls are not "
                           "in it: call optimizer.train() before such a checkpoint is written")


def numbered(saved: Mapping[str, Any], groups: list[dict[str, Any]]) -> Iterable[tuple[nn.Parameter, Any]]:
    """The parameters with the numbers that they have in a saved state."""
    return zip(chain.from_iterable(group["params"] for group in groups),
               chain.from_iterable(group["params"] for group in saved["param_groups"]), strict=True)


def take_over(saved: Mapping[str, Any], groups: list[dict[str, Any]], states: States, taken: Taken) -> None:
    """Every entry in its own dtype (torch gives them the parameter's), as far as it is kept here; numbers,
    which are read without waiting for a device, on the CPU."""
    for parameter, number in numbered(saved, groups):
        for key, value in saved["state"].get(number, {}).items():
            counts = value.ndim == 0 and key not in LIKE_PARAMETERS
            device = torch.device("cpu") if counts else parameter.device
            found = taken(parameter, key, value)
            if found is None:
                states[parameter].pop(key, None)
            else:
                states[parameter][key] = found.to(device)


def _check_entries(found: Mapping[str, Any], known: Layout, name: str) -> None:
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise ProblemError(f"EMSA: the saved state of {name} has {key} = {value!r}, where a tensor was "
                               "expected")
        if key not in known:
            raise ProblemError(f"EMSA: the saved state of {name} has an entry {key!r} that no state of this "
                               "stage has: it is that of another optimizer, of other settings, or of another "
                               "version")
        shape, dtype = known[key]
        if value.shape != shape:
            raise ProblemError(f"EMSA: the saved {key} of {name} has shape {tuple(value.shape)}, expected "
                               f"{tuple(shape)}: the state is that of another model or of another "
                               "metric_rank")
        if value.dtype != dtype:
            raise ProblemError(f"EMSA: {key} of {name} is {value.dtype} in the saved state, expected "
                               f"{dtype}: load it into a model of the dtype that it was saved with")
