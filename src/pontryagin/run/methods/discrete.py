"""Methods over discrete weights, the parameters with two axes or more; Adam trains the others."""

import torch
from torch import nn

from pontryagin.problem.admissible import DiscreteSet, MatrixSet
from pontryagin.problem.admissible.names import NAMED, set_name
from pontryagin.run.baselines import BinaryConnect, Bop, LiHao, Several, rounded, split_parameters
from pontryagin.run.errors import ExperimentError, unknown
from pontryagin.run.methods.method import OWN_SCHEDULE, Method, MethodStyle
from pontryagin.run.objective import Objective
from pontryagin.run.trainer import Optimizer, OptimizerTrainer, OwnSchedule, Trainer


def set_named(name: str) -> MatrixSet:
    """One of NAMED. Raises ExperimentError."""
    if not isinstance(name, str) or set_name(name) not in NAMED:
        raise unknown("admissible set", [str(name)], NAMED)
    return NAMED[set_name(name)]


@torch.no_grad()
def begin(model: nn.Module, name: str) -> MatrixSet:
    """The set of that name; weights are rounded to a discrete one as by BinaryConnect: all begin alike."""
    found = set_named(name)
    if isinstance(found, DiscreteSet):
        for weight in split_parameters(model)[0]:
            weight.copy_(rounded(weight, found))
    return found


def li_hao(model: nn.Module, objective: Objective, rate: float, *, admissible: str = "binary",
           rho: float | None = None, renewal: float = 1e-3, decay: float = 0.95, period: int = 550,
           l1: float = 1e-7, start: float = 1e-6) -> Trainer:
    """Li and Hao's rule, with the schedule of its authors alone. rate: of Adam."""
    _discrete("li-hao", admissible)
    wanted, weights = begin(model, admissible), split_parameters(model)[0]
    made = LiHao(weights, wanted,  # type: ignore[arg-type] # which it checks
                 rho=rho, renewal=renewal, decay=decay, period=period, l1=l1, start=start)
    return OwnSchedule(model, _with_adam(model, made, rate), objective)


def bop(model: nn.Module, objective: Objective, rate: float, *, threshold: float = 1e-6,
        norm_rate: float = 1e-3) -> Trainer:
    """Bop, binary. rate: its gamma; norm_rate: of Adam."""
    begin(model, "binary")
    made = Bop(split_parameters(model)[0], lr=rate, threshold=threshold)
    return OptimizerTrainer(model, _with_adam(model, made, norm_rate), objective)


def binary_connect(model: nn.Module, objective: Objective, rate: float, *, admissible: str = "binary",
                   norm_rate: float = 1e-3) -> Trainer:
    """Latent weights and the straight-through gradient. rate: of the latent weights; norm_rate: of Adam."""
    made = BinaryConnect(split_parameters(model)[0], _discrete("binaryconnect", admissible), lr=rate)
    return OptimizerTrainer(model, _with_adam(model, made, norm_rate), objective)


def _discrete(method: str, name: str) -> DiscreteSet:
    found = set_named(name)
    if not isinstance(found, DiscreteSet):
        raise ExperimentError(f"{method} cannot train over {name!r}: expected a discrete set such as binary "
                              "or ternary")
    return found


def _with_adam(model: nn.Module, made: Optimizer, rate: float) -> Several:
    rest = split_parameters(model)[1]
    return Several(made, torch.optim.Adam(rest, rate)) if rest else Several(made)


LI_HAO = Method("li-hao", li_hao, (1e-3,), MethodStyle("Li and Hao", "#009E73", (0, (6, 1.5, 1.5, 1.5)), 1.9),
                leaves=OWN_SCHEDULE)
BOP = Method("bop", bop, (1e-3, 1e-4, 1e-2), MethodStyle("Bop", "#CC79A7", (0, (3, 1.2))))
BINARY_CONNECT = Method("binaryconnect", binary_connect, (1e-3, 1e-4, 3e-3, 1e-2),
                        MethodStyle("BinaryConnect", "#E69F00", (0, (5, 1.5))))
