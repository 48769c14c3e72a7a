"""Which models and settings EMSA takes."""

import sys
from math import inf, isfinite
from typing import Any

from torch import nn

from pontryagin.problem import ProblemError

_LIMITS = {"lr": (0, inf), "damping": (0, inf), "power": (0, 1), "momentum": (0, 0.999),
           "memory": (0, 0.9999),
           "weight_decay": (0, inf), "fallback": (0, inf), "moves": (0, inf)}


def check_model(model: object) -> None:
    """Raise ProblemError for what is no module, and for parameters that have no shape, no values or no whole
    values here."""
    if not isinstance(model, nn.Module):
        raise ProblemError(f"EMSA expects a torch module, found {type(model).__name__}: it has to see the "
                           "inputs of the layers, so pass the model first, and parameters by params=")
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise ProblemError("EMSA: the model has lazy parameters without a shape; run it on one batch first")
    meta = next((name for name, parameter in model.named_parameters() if parameter.is_meta), None)
    if meta is not None:
        raise ProblemError(f"EMSA: {meta} is on the meta device, without values: materialize the model first "
                           "(to_empty replaces its parameters), then make the optimizer")
    if _is_flat(model):
        raise ProblemError("EMSA: FullyShardedDataParallel flattens parameters, and an argmax needs each "
                           "stage's own gradient: use DistributedDataParallel")
    if _is_sharded(model):
        raise ProblemError("EMSA: the model's parameters are sharded (fully_shard), and an argmax needs its "
                           "stage's whole gradient: use DistributedDataParallel, or shard only parts that "
                           "another optimizer trains")


def check_settings(budget: object, rank: object, rows: object) -> None:
    """Raise ProblemError for what cannot be."""
    numbers = isinstance(budget, int | float) and isfinite(budget) and budget > 0
    if not (numbers and _is_count(rank, 1) and (rows is None or _is_count(rows, 8))):
        raise ProblemError("EMSA: expected budget > 0 and finite, rank >= 1, rows >= 8 or None, the last two "
                           f"whole numbers, found {budget}, {rank}, {rows}")


def check_group(group: dict[str, Any]) -> None:
    """Raise ProblemError for settings of a param group that cannot be."""
    for name, (low, high) in _LIMITS.items():
        value = _number(name, group[name])
        if not (isfinite(value) and low <= value <= high):
            end = ")" if high == inf else "]"
            raise ProblemError(f"EMSA {name}: expected a number in [{low}, {high}{end}, found {group[name]}")
    if group["averaging"] is not None and not 0 <= _number("averaging", group["averaging"]) < inf:
        raise ProblemError(f"EMSA averaging: expected a number >= 0 or None, found {group['averaging']}")
    if group["nonzero"] is not None and not 0 < _number("nonzero", group["nonzero"]) <= 1:
        raise ProblemError("EMSA nonzero: expected a share of the weights in (0, 1], found "
                           f"{group['nonzero']}")


def check_rates(group: dict[str, Any]) -> None:
    """Raise ProblemError for what a schedule may have made of the rates, before it is applied."""
    for name in ("lr", "weight_decay", "fallback"):
        if not 0 <= float(group[name]) < inf:
            raise ProblemError(f"EMSA {name}: expected a number in [0, inf), found {group[name]}: nothing "
                               "has been changed; look at the schedule")


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ProblemError(f"EMSA {name}: expected a number, found {value!r}") from error


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_flat(model: nn.Module) -> bool:
    """Whether FSDP of the first kind wraps a part."""
    module = sys.modules.get("torch.distributed.fsdp")
    return module is not None and any(isinstance(part, module.FullyShardedDataParallel)
                                      for part in model.modules())


def _is_sharded(model: nn.Module) -> bool:
    """Whether a parameter is a DTensor. That module takes seconds to import, and without it there are
    none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(parameter, module.DTensor)
                                      for parameter in model.parameters())
