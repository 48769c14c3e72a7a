"""A task from names: a ready model and data, or a user's own by import path."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pontryagin.run.errors import ExperimentError
from pontryagin.run.objective import OBJECTIVES, Objective, objective_named
from pontryagin.run.samples import samples_of
from pontryagin.run.specs import Part, Splits, build_model, load_cost, load_data
from pontryagin.run.task import Task

DESCRIPTION = ("model", "model_args", "data", "data_args", "loss")
"""Keys of a description; its values are the arguments of `task_from`."""
OWN_CODE = ("model", "data", "loss")
"""Those that may name a user's own code, as package.module:name."""


def task_from(model: str, data: str, loss: str | None = None, model_args: Mapping[str, Any] | None = None,
              data_args: Mapping[str, Any] | None = None) -> Task:
    """loss: one of OBJECTIVES or `my.module:function`; by default cross-entropy for whole-number targets,
    else squared error.

    Raises ExperimentError.
    """
    splits = load_data(data, data_args)
    with torch.random.fork_rng():
        build_model(model, model_args, splits)  # what is wrong with it is said before any work
    described = {"model": model, "model_args": dict(model_args or {}), "data": data,
                 "data_args": dict(data_args or {}),
                 "loss": loss}
    return Task(f"{_short(model)} on {_short(data)}", lambda: build_model(model, model_args, splits),
                samples_of(splits.train), samples_of(splits.test), objective_from(loss, splits), described)


def objective_from(loss: str | None, splits: Splits) -> Objective:
    """By name, by import path, or by the kind of the targets."""
    targets = _targets(splits.train)
    if loss is None:
        return OBJECTIVES["squared-error" if targets.is_floating_point() else "cross-entropy"]
    if ":" not in loss:
        return objective_named(loss)
    return Objective(loss, load_cost(loss), classifies=not targets.is_floating_point() and targets.ndim == 1)


def from_description(description: Mapping[str, Any], given: Mapping[str, str]) -> Task:
    """The task of a checkpoint. given: names on the command line; a file alone never decides what code is
    imported.

    Raises ExperimentError when the description names code of a user's own that is not given again.
    """
    if set(description) != set(DESCRIPTION):
        raise ExperimentError("the checkpoint's task was not made from names: expected "
                              f"{', '.join(DESCRIPTION)}, found "
                              f"{', '.join(map(str, description)) or 'nothing'}")
    unconfirmed = [part for part in OWN_CODE if ":" in str(description[part])
                   and given.get(part) != description[part]]
    if unconfirmed:
        wanted = " ".join(f"--{part} {description[part]}" for part in unconfirmed)
        raise ExperimentError("the checkpoint was made with code that it does not hold; to import that "
                              f"code, add: {wanted}")
    return task_from(**description)


def _targets(part: Part) -> Tensor:
    """Of some samples, with their axis."""
    if isinstance(part, tuple):
        return part[1]
    if isinstance(part, TensorDataset) and len(part.tensors) == 2:
        return part.tensors[1]
    return torch.as_tensor(part[0][1]).unsqueeze(0)


def _short(spec: str) -> str:
    return spec.rpartition(":")[2]
