"""The state of `Averaged`: averages among what the optimizer inside keeps of each parameter, as torch and
torch.distributed.checkpoint expect a state to be, and apart again."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pontryagin.errors import ProblemError
from pontryagin.optim.state import AverageState, Entries
from pontryagin.trajectory.local import as_spread, part_as

_OURS = "averaged_"
"""How the names of these entries begin."""
_KEPT = ("mean_control", "last_control")


def with_averages(saved: Mapping[str, Any], known: Sequence[tuple[Tensor, AverageState]], steps: int,
                  is_shown: bool) -> dict[str, Any]:
    """The state of the optimizer inside, and beside each parameter's its average, spread as the parameter
    is, the number of steps, and whether the averages are shown."""
    state = dict(saved["state"])
    for number, (parameter, average) in zip(_numbers(saved), known, strict=True):
        own = {name: as_spread(value, parameter) for name, value in average.entries.items()}
        own |= {"steps": torch.tensor(steps), "shown": torch.tensor(is_shown)}
        state[number] = {**state.get(number, {}), **{_OURS + name: value for name, value in own.items()}}
    return {**saved, "state": state}


def without_averages(saved: Any, parameters: Sequence[Tensor]
                     ) -> tuple[dict[str, Any], list[Entries], int, bool]:
    """The state of the optimizer inside; of each parameter the averages, the part that lies here; the number
    of steps; whether the averages are shown. Raises ProblemError for what is no such state."""
    if not isinstance(saved, Mapping) or not {"state", "param_groups"} <= saved.keys():
        found = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else type(saved).__name__
        raise _expected(f"found {found}")
    numbers = _numbers(saved)
    if len(numbers) != len(parameters):
        raise ProblemError(f"Averaged: the saved state has averages of {len(numbers)} parameters, this "
                           f"optimizer has {len(parameters)}")
    entries = [saved["state"].get(number, {}) for number in numbers]
    inside = {key: value for key, value in saved["state"].items() if key not in numbers}
    inside |= {number: kept for number, each in zip(numbers, entries, strict=True)
               if (kept := {name: each[name] for name in each if not str(name).startswith(_OURS)})}
    own = [{str(name).removeprefix(_OURS): value for name, value in each.items()
            if str(name).startswith(_OURS)} for each in entries]
    steps, is_shown = _agreed(own, bool(inside))
    averages = [{name: each[name] for name in _KEPT if name in each} for each in own]
    if steps and parameters and not any(averages):
        raise _expected("found none")
    _check(averages, parameters, is_shown)
    parts = [{name: part_as(value, parameter) for name, value in each.items()}
             for each, parameter in zip(averages, parameters, strict=True)]
    return {**saved, "state": inside}, parts, steps, is_shown


def _numbers(saved: Mapping[str, Any]) -> list[Any]:
    return [number for group in saved["param_groups"] for number in group["params"]]


def _expected(found: str) -> ProblemError:
    return ProblemError(f"Averaged: expected what state_dict() gives, with averages in it, {found}; a state "
                        "of the optimizer inside is loaded by .optimizer")


def _agreed(own: Sequence[Mapping[str, Any]], has_more: bool) -> tuple[int, bool]:
    """steps, shown: the same beside every parameter."""
    told = {(int(each["steps"]), bool(each["shown"])) for each in own if {"steps", "shown"} <= each.keys()}
    if not told and not has_more:
        return 0, False
    if len(told) != 1 or min(told)[0] < 0:
        raise _expected(f"found {len(told)} numbers of steps beside the parameters")
    return told.pop()


def _check(averages: Sequence[Mapping[str, Any]], parameters: Sequence[Tensor], is_shown: bool) -> None:
    for number, (each, parameter) in enumerate(zip(averages, parameters, strict=True)):
        for value in each.values():
            if tuple(value.shape) != tuple(parameter.shape):
                raise ProblemError(f"Averaged: the saved averages of parameter {number} have shape "
                                   f"{tuple(value.shape)}, expected {tuple(parameter.shape)}")
    if is_shown and any(averages) and not any("last_control" in each for each in averages):
        raise ProblemError("Averaged: this state was saved while the model held the averages, and the "
                           "controls are not in it: call optimizer.train() before such a checkpoint is "
                           "written, or optimizer.eval() before it is read")
