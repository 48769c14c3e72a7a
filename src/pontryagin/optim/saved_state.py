"""What a saved state must look like before it is loaded."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.problem import ProblemError

Entries = Mapping[str, tuple[torch.Size, torch.dtype]]
"""Shapes and dtypes of all entries that a state may have."""
_LATER = {"averaging", "averaged"}
"""Settings that a checkpoint may lack."""
LIKE_PARAMETERS = {"mean_control", "last_control", "first", "second"}
"""Entries of the state that lie where the parameter does, also of a scalar one."""


def check_saved(state_dict: Mapping[str, Any], groups: list[dict[str, Any]], settings: Iterable[str],
                entries_of: Callable[[nn.Parameter, Mapping[str, Any]], Entries],
                needed_of: Callable[[nn.Parameter, Mapping[str, Any]], Iterable[str]],
                name_of: Callable[[nn.Parameter], str]) -> None:
    """Raise ProblemError for the state of another optimizer, of another number of parameters, or of other
    shapes."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        raise ProblemError("EMSA: expected the dictionary that state_dict() gives, with state and "
                           "param_groups, found "
                           f"{sorted(map(str, state_dict)) if isinstance(state_dict, Mapping) else type(state_dict).__name__}")
    saved = state_dict["param_groups"]
    if not all(isinstance(group, Mapping) and "params" in group for group in saved):
        raise ProblemError("EMSA: the saved state has groups without params: it is not what state_dict() "
                           "gives")
    if [len(group["params"]) for group in saved] != [len(group["params"]) for group in groups]:
        raise ProblemError(f"EMSA: the saved state has groups of {[len(group['params']) for group in saved]} "
                           f"parameters, this optimizer has {[len(group['params']) for group in groups]}: "
                           "make it from the same model and groups")
    missing = sorted(set(settings) - _LATER - {key for group in saved for key in group})
    if missing:
        raise ProblemError("EMSA: the saved state is that of another optimizer: its groups have no "
                           f"{', '.join(missing)}")
    for group, old in zip(groups, saved, strict=True):
        for parameter, number in zip(group["params"], old["params"], strict=True):
            entries, name = state_dict["state"].get(number, {}), name_of(parameter)
            _check_entries(entries, entries_of(parameter, entries), name)
            absent = sorted(set(needed_of(parameter, entries)) - set(entries))
            if absent:
                raise ProblemError(f"EMSA: the saved state of {name} has no {', '.join(absent)}: it is not "
                                   "whole, or that of other settings")


def check_shown(state_dict: Mapping[str, Any]) -> None:
    """Raise ProblemError for a state that was saved between eval() and train() and lacks the controls."""
    shown = any(group.get("averaged") for group in state_dict["param_groups"])
    averaged = [state for state in state_dict["state"].values() if "mean_control" in state]
    if shown and averaged and not any("last_control" in state for state in averaged):
        raise ProblemError("this state was saved while the model held the averages, and the controls are not "
                           "in it: call optimizer.train() before such a checkpoint is written")


def _check_entries(found: Mapping[str, Any], known: Entries, name: str) -> None:
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
                               f"{tuple(shape)}: the state is that of another model or of another rank")
        if value.dtype != dtype:
            raise ProblemError(f"EMSA: {key} of {name} is {value.dtype} in the saved state, expected "
                               f"{dtype}: load it into a model of the dtype that it was saved with")
