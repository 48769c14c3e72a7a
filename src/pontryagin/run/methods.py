"""The methods of training, each by the name that options, tables and figures use, with its grid of learning
rates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn

from pontryagin.optim import EMSA
from pontryagin.problem import ProblemError
from pontryagin.run import discrete
from pontryagin.run.averaged import Averaged
from pontryagin.run.baselines import muon
from pontryagin.run.errors import ExperimentError
from pontryagin.run.extras import need
from pontryagin.run.objective import Objective
from pontryagin.run.paper_emsa import PaperEMSA
from pontryagin.run.trainer import Optimizer, OptimizerTrainer, ScheduleFree, Trainer

Make = Callable[..., Trainer]
"""make(model, objective, rate, *, option, ...): a trainer at its start. Options are keyword-only, with
defaults."""


@dataclass(frozen=True)
class Method:
    """make: see Make. rates: the grid to tune on, the customary default first; with one rate it is never
    tuned. needs: a package of an extra."""

    name: str
    make: Make
    rates: tuple[float, ...]
    needs: str = ""

    def trainer(self, model: nn.Module, objective: Objective, rate: float | None = None,
                options: Mapping[str, Any] | None = None) -> Trainer:
        """At its start. Raises ExperimentError for an option that the method does not have or a value that it
        refuses."""
        given = dict(options or {})
        known = [name for name,
                 found in signature(self.make).parameters.items() if found.kind is Parameter.KEYWORD_ONLY]
        unknown = sorted(given.keys() - set(known))
        if unknown:
            raise ExperimentError(f"{self.name} has no option {', '.join(unknown)}: expected "
                                  f"{', '.join(known) or 'none'}")
        try:
            return self.make(model, objective, self.rates[0] if rate is None else rate, **given)
        except (ProblemError, ExperimentError):
            raise
        except (TypeError, ValueError) as error:
            raise ExperimentError(f"{self.name} cannot be made with rate {rate} and options {given}: {error}") from error


def emsa(model: nn.Module, objective: Objective, rate: float, *, damping: float = 0.1, power: float = 0.5,
         momentum: float = 0.6, averaging: float | None = 8.0, weight_decay: float = 0.0,
         budget: float = 0.025, rank: int = 32, admissible: str | None = None,
         nonzero: float | None = None) -> Trainer:
    """The closed-form argmax; over the admissible set of that name, where weights of a discrete one begin
    rounded; nonzero: the share of weights that a price leaves over ternary sets."""
    wanted = discrete.begin(model, admissible) if admissible else None
    made = EMSA(model, lr=rate, damping=damping, power=power, momentum=momentum, averaging=averaging,
                weight_decay=weight_decay, budget=budget, rank=rank, admissible=wanted, nonzero=nonzero)
    return OptimizerTrainer(model, made, objective)


def emsa_paper(model: nn.Module, objective: Objective, rate: float, *, iterations: int = 10) -> Trainer:
    """The paper's argmax by L-BFGS; its rate is 1 / rho, rho in the paper's units."""
    return PaperEMSA(model, objective, 1 / rate, iterations)


def sgd(model: nn.Module, objective: Objective, rate: float, *, momentum: float = 0.0,
        weight_decay: float = 0.0) -> Trainer:
    """Stochastic gradient descent, plain by default as in the paper."""
    return _trained(torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum,
                                    weight_decay=weight_decay), model, objective)


def sgd_momentum(model: nn.Module, objective: Objective, rate: float, *, momentum: float = 0.9,
                 weight_decay: float = 0.0) -> Trainer:
    """The same with momentum."""
    return sgd(model, objective, rate, momentum=momentum, weight_decay=weight_decay)


def adagrad(model: nn.Module, objective: Objective, rate: float, *, weight_decay: float = 0.0) -> Trainer:
    """Adagrad."""
    return _trained(torch.optim.Adagrad(model.parameters(), lr=rate, weight_decay=weight_decay), model,
                    objective)


def adam(model: nn.Module, objective: Objective, rate: float, *, betas: Sequence[float] = (0.9, 0.999),
         eps: float = 1e-8, weight_decay: float = 0.0) -> Trainer:
    """Adam."""
    return _trained(torch.optim.Adam(model.parameters(), lr=rate, betas=_pair(betas), eps=eps,
                                     weight_decay=weight_decay),
                    model, objective)


def adamw(model: nn.Module, objective: Objective, rate: float, *, betas: Sequence[float] = (0.9, 0.999),
          eps: float = 1e-8, weight_decay: float = 0.01) -> Trainer:
    """Adam with decoupled weight decay."""
    return _trained(torch.optim.AdamW(model.parameters(), lr=rate, betas=_pair(betas), eps=eps,
                                      weight_decay=weight_decay),
                    model, objective)


def adam_averaged(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """Adam with the averages of EMSA."""
    return _trained(Averaged(model, torch.optim.Adam(model.parameters(), lr=rate)), model, objective)


def schedule_free(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """Schedule-free AdamW of pytorch-optimizer (Defazio et al. 2024): it has averages and a rate of its
    own."""
    made = _packaged("ScheduleFreeAdamW", model, rate)
    made.train()
    return ScheduleFree(model, made, objective)


def with_muon(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """Muon on hidden layers, AdamW elsewhere."""
    return _trained(muon(model, rate), model, objective)


def soap(model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """SOAP of pytorch-optimizer."""
    return packaged("SOAP", model, objective, rate)


def packaged(name: str, model: nn.Module, objective: Objective, rate: float) -> Trainer:
    """An optimizer of pytorch-optimizer by its class's name."""
    return _trained(_packaged(name, model, rate), model, objective)


def _packaged(name: str, model: nn.Module, rate: float) -> Any:
    pytorch_optimizer = need("pytorch_optimizer", name)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # they flatten gradients by view
    return getattr(pytorch_optimizer, name)(model.parameters(), lr=rate)


_ADAM = (1e-3, 2e-3, 5e-3, 1e-2)

METHODS = {method.name: method for method in (
    Method("emsa", emsa, (0.03,)),
    Method("emsa-paper", emsa_paper, (100.0, 30.0, 300.0)),
    Method("sgd", sgd, (1e-1, 3e-2, 3e-1, 1.0)),
    Method("sgd-momentum", sgd_momentum, (1e-2, 3e-2, 1e-1, 3e-1)),
    Method("adagrad", adagrad, (1e-2, 3e-3, 3e-2, 1e-1)),
    Method("adam", adam, _ADAM),
    Method("adam-averaged", adam_averaged, _ADAM),
    Method("adamw", adamw, _ADAM),
    Method("schedule-free", schedule_free, (2e-3, 1e-3, 5e-3, 1e-2), needs="pytorch_optimizer"),
    Method("muon", with_muon, (1e-2, 3e-3, 2e-2, 4e-2)),
    Method("soap", soap, (3e-3, 1e-3, 5e-3, 1e-2), needs="pytorch_optimizer"),
    Method("li-hao", discrete.li_hao, (1e-3,)),
    Method("bop", discrete.bop, (1e-3, 1e-4, 1e-2)),
    Method("binaryconnect", discrete.binary_connect, (1e-3, 1e-4, 3e-3, 1e-2)),
)}
"""A new method is a file with its `make` and a line here."""


def choose(names: Sequence[str] | None, methods: Mapping[str, Method] = METHODS) -> list[Method]:
    """The methods with these names, all if None, in the order of `methods`. Raises ExperimentError for a name
    that is unknown or whose package is missing."""
    unknown = sorted(set(names or ()) - methods.keys())
    if unknown:
        raise ExperimentError(f"unknown method {', '.join(map(repr, unknown))}: expected one or more of "
                              f"{', '.join(methods)}")
    for name in names or ():
        if methods[name].needs:
            need(methods[name].needs, f"method {name}", "leave it out")
    return [method for method in methods.values() if names is None or method.name in names]


def _trained(optimizer: Optimizer, model: nn.Module, objective: Objective) -> Trainer:
    return OptimizerTrainer(model, optimizer, objective)


def _pair(betas: Sequence[float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise ValueError(f"expected two betas, found {len(betas)}")
    return betas[0], betas[1]
