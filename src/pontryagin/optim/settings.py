"""What EMSA can be told, beyond its rates, and which models and settings it takes."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from torch import nn

from pontryagin.errors import ProblemError
from pontryagin.optim.promise import check_running
from pontryagin.optim.schedule import STRETCHES
from pontryagin.problem.admissible.by_name import ModelSets

_LIMITS = {"lr": (0, inf), "damping": (0, inf), "exponent": (0, 1), "momentum": (0, 0.999),
           "rho_decay": (0, 0.9999), "weight_decay": (0, inf), "adamw_lr": (0, inf), "flip_rate": (0, inf)}


@dataclass(frozen=True)
class Metric:
    """In what a step is measured, and what that may cost.

    damping: delta / mean(diag A_c). exponent: of (A_c + delta I); 1 is the argmax with a state penalty alone
    ([LCTE] Algorithm 2), 1/2 whitens the noise of G, as it is measured (directions.py); None: of each stage
    by how many rows a step sees, 1/2 or 1 (certainty.py). rho_decay: of the running mean of squared output
    changes, rho^2. These three can be set per group. metric_rank: beyond twice so many inputs the metric is
    kept on a leading subspace of this rank, the rest by its mean. moment_rows: positions of a batch that
    enter the moments (None: all). refresh_budget: moments and their factorizations may cost this share of
    the propagation, counted in flops.
    """

    damping: float = 0.1
    exponent: float | None = None
    rho_decay: float = 0.95
    metric_rank: int = 32
    moment_rows: int | None = 512
    refresh_budget: float = 0.025

    def __post_init__(self) -> None:
        budget, rank, rows = self.refresh_budget, self.metric_rank, self.moment_rows
        numbers = isinstance(budget, int | float) and isfinite(budget) and budget > 0
        if not (numbers and _is_count(rank, 1) and (rows is None or _is_count(rows, 8))):
            raise ProblemError("EMSA: expected refresh_budget > 0 and finite, metric_rank >= 1, moment_rows "
                               f">= 8 or None, the last two whole numbers, found {budget}, {rank}, {rows}")


@dataclass(frozen=True)
class Constraint:
    """Sets in which parameters lie after every step; they are projected onto them at once.

    admissible: a set for all matrices, or sets by names of submodules or parameters or patterns of them. Over
    discrete sets (Binary, Ternary, Codebook) the elementwise argmax of the averaged Hamiltonian in the metric
    of the inputs' variances moves a share lr * flip_rate of the entries per step; other sets are projected
    onto after the step. density: over Ternary a price on every non-zero weight, set so that this share of the
    group's ternary weights is left, in proportion to rows + inputs of each matrix; None for no price. The
    last two can be set per group.
    """

    admissible: ModelSets | None = None
    flip_rate: float = 1 / 30
    density: float | None = None


@dataclass(frozen=True)
class StageOwners:
    """Each stage is stepped by one process of several, its owner, who alone has its metric and momentum and
    sends its change to all: for EMSA(process_group=...) under DistributedDataParallel. Under fully_shard and
    tensor parallel it is so without a word.

    process_group: of processes whose gradients are averaged; None: of all. bucket: numbers that travel
    together, and whose argmax is taken while the next are on their way.
    """

    process_group: Any = None
    bucket: int = 1 << 22

    def __post_init__(self) -> None:
        if not _is_count(self.bucket, 1):
            raise ProblemError(f"StageOwners: expected a bucket of at least one number, found "
                               f"{self.bucket!r}")


def constraint_of(given: Constraint | ModelSets | None) -> Constraint:
    """Sets by themselves are a constraint with its other settings as they come."""
    if given is None:
        return Constraint()
    return given if isinstance(given, Constraint) else Constraint(given)


def check_model(model: object) -> None:
    """Raise ProblemError for what is no module, and for parameters that have no shape, no values or no whole
    values here."""
    if not isinstance(model, nn.Module):
        raise ProblemError(f"EMSA expects a torch module, found {type(model).__name__}: it has to see the "
                           "inputs of the layers, so pass the model first, and parameters by params=")
    parameters = list(model.named_parameters())
    if any(nn.parameter.is_lazy(parameter) for _, parameter in parameters):
        raise ProblemError("EMSA: the model has lazy parameters without a shape; run it on one batch first")
    meta = next((name for name, parameter in parameters if parameter.is_meta), None)
    if meta is not None:
        raise ProblemError(f"EMSA: {meta} is on the meta device, without values: materialize the model first "
                           "(to_empty replaces its parameters), then make the optimizer")
    if holds("torch.distributed.fsdp", "FullyShardedDataParallel", model.modules()) or any(
            getattr(parameter, "_fsdp_flattened", False) for _, parameter in parameters):  # torch's mark
        raise ProblemError("EMSA: FullyShardedDataParallel flattens parameters, and an argmax needs each "
                           "stage's own gradient: use fully_shard (FSDP2) in its place, or "
                           "DistributedDataParallel")


_FORMER = {"power": "exponent", "memory": "rho_decay", "fallback": "adamw_lr", "moves": "flip_rate",
           "nonzero": "density", "relaxation": "step_scale"}
"""Names of a version before, which would be taken for keys of somebody else's."""


def check_group(group: Mapping[str, Any]) -> None:
    """Raise ProblemError for settings of a param group that cannot be."""
    for name in group.keys() & _FORMER.keys():
        raise ProblemError(f"EMSA: a param group has {name!r}, which is called {_FORMER[name]!r} now")
    for name, (low, high) in _LIMITS.items():
        if name == "exponent" and group[name] is None:
            continue
        value = _number(name, group[name])
        if not (isfinite(value) and low <= value <= high):
            end = ")" if high == inf else "]"
            raise ProblemError(f"EMSA {name}: expected a number in [{low}, {high}{end}, found {group[name]}")
    if group["averaging"] is not None and not 0 <= _number("averaging", group["averaging"]) < inf:
        raise ProblemError(f"EMSA averaging: expected a number >= 0 or None, found {group['averaging']}")
    if group["density"] is not None and not 0 < _number("density", group["density"]) <= 1:
        raise ProblemError("EMSA density: expected a share of the weights in (0, 1], found "
                           f"{group['density']}")
    check_running(group["promise"])
    for name, least in (("steps", 0), ("refresh_every", 1)):
        if not _is_count(group[name], least):
            raise ProblemError(f"EMSA {name}: expected a whole number >= {least}, found {group[name]!r}")
    if not (_is_count(group["probe_stretch"], 1) and group["probe_stretch"] in STRETCHES):
        raise ProblemError(f"EMSA probe_stretch: expected one of {STRETCHES}, found "
                           f"{group['probe_stretch']!r}")


def check_rates(group: Mapping[str, Any]) -> None:
    """Raise ProblemError for what a schedule may have made of the rates, before it is applied."""
    for name in ("lr", "weight_decay", "adamw_lr"):
        if not 0 <= float(group[name]) < inf:
            raise ProblemError(f"EMSA {name}: expected a number in [0, inf), found {group[name]}: nothing "
                               "has been changed; look at the schedule")


def _number(name: str, value: Any) -> float:
    try:
        return float("true" if isinstance(value, bool) else value)
    except (TypeError, ValueError) as error:
        raise ProblemError(f"EMSA {name}: expected a number, found {value!r}") from error


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def holds(module: str, kind: str, parts: Any) -> bool:
    """Whether some are of a class of torch's. Its module takes seconds to import, and without it there are
    none."""
    found = sys.modules.get(module)
    return found is not None and any(isinstance(part, getattr(found, kind)) for part in parts)
