"""`find_lr`: the learning rate of any torch optimizer on any module, by pilots that leave no trace."""

from collections.abc import Callable, Iterable, MutableMapping, MutableSequence, Sequence
from copy import copy
from itertools import cycle, islice
from math import isfinite
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.distributed.reductions import is_alone, summed, together
from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.optim.emsa import EMSA
from pontryagin.optim.pilot import FoundRate, Pilot, halving
from pontryagin.optim.snapshot import snapshot

RATES = (0.003, 0.01, 0.03, 0.06, 0.1)
"""EMSA's best rates on the networks of docs/optimizer.md lie between the first and the last."""
ITERATIONS = 20
"""Of five rates found one within 1.3 times the iterations of the best in 19 of the 20 runs of
docs/optimizer.md; 40 or 80 do not mend the other."""
_TAKE_A_CLOSURE = (EMSA, torch.optim.LBFGS)
"""Optimizers that are given the loss; of others it is not known that they call the closure."""

Make = Callable[[Any, float], torch.optim.Optimizer]
Loss = Callable[[Any, Any], Tensor]


def find_lr(make_optimizer: Make, model: nn.Module, loss: Loss,
            batches: Iterable[Any] | Callable[[], Iterable[Any]], *, rates: Sequence[float] = RATES,
            iterations: int = ITERATIONS, process_group: Any = None) -> FoundRate:
    """Try rates in short runs from the model as it is, and put it back bit by bit, with all generators of
    random numbers (see `snapshot`).

        found = find_lr(lambda model, lr: EMSA(model, lr=lr), model, loss, loader)
        optimizer = EMSA(model, lr=found.rate)

    make_optimizer: (model, rate) -> a fresh torch optimizer of that model, whose groups' rates then fall
    linearly to 0. loss: (model, batch) -> what is minimized, a scalar; autocast and the like stand in it.
    batches: a DataLoader, a list, an iterator or a function that gives one; as many as `iterations` are
    taken, once, and kept in memory; fewer come again in turn. rates: for another optimizer its own, as (3e-4,
    1e-3, 3e-3, 1e-2, 3e-2) for AdamW. iterations: of the longest pilots; 1 % of the run to come, if that is
    more; with five rates all pilots have 3.25 to 4.5 times as many. process_group: of processes that train
    one model without DistributedDataParallel, which names its own; losses are means over them, so that all
    find the same rate.

    Raises ProblemError for wrong arguments, NonFiniteError when every rate fails; the model is put back then
    too.
    """
    _check(model, rates, iterations)
    restore = snapshot(model, loss, batches)
    try:
        given = batches() if callable(batches) else batches
        if not isinstance(given, Iterable | Tensor):
            raise ProblemError("find_lr: expected batches, a list, a DataLoader, an iterator or a function "
                               f"that gives one, found {type(given).__name__}")
        kept = list(islice(given, iterations))
        if not kept:
            raise ProblemError("find_lr: expected batches, found none: give a list, a DataLoader or an "
                               "iterator that is not used up")

        def pilot(rate: float, length: int) -> Pilot:
            restore()
            return _pilot(make_optimizer, model, loss, kept, rate, length)

        if process_group is None and isinstance(model, nn.parallel.DistributedDataParallel):
            process_group = model.process_group
        with together(process_group):
            found = halving(map(float, rates), iterations, pilot)
    finally:
        restore()
    assert found is not None  # no pilot was None
    return FoundRate(*found, len(kept))


def _check(model: object, rates: Sequence[float], iterations: object) -> None:
    if not isinstance(model, nn.Module) or any(map(nn.parameter.is_lazy, model.parameters())):
        raise ProblemError(f"find_lr: expected a torch module whose parameters have shapes, found "
                           f"{type(model).__name__}: give the model after make_optimizer, run on a batch if "
                           "it is lazy")
    if not len(rates) or not all(isinstance(rate, int | float) and isfinite(rate) and rate > 0
                                 for rate in rates):
        raise ProblemError(f"find_lr: expected rates > 0 and finite, at least one, found {rates!r}")
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise ProblemError(f"find_lr: expected a whole number of iterations >= 1, found {iterations!r}")


def _pilot(make_optimizer: Make, model: nn.Module, loss: Loss, batches: Sequence[Any], rate: float,
           length: int) -> Pilot:
    """One of so many iterations, from the model as it is."""
    began, failure = perf_counter(), ""
    for parameter in model.parameters():
        parameter.grad = None
    optimizer = make_optimizer(model, rate)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ProblemError("find_lr: expected make_optimizer(model, rate) to give a torch optimizer, found "
                           f"{type(optimizer).__name__}")
    starts, losses = [group["lr"] for group in optimizer.param_groups], list[float]()
    passes = {"forward": 0, "backward": 0}
    for done, batch in enumerate(islice(cycle(batches), length)):
        for group, start in zip(optimizer.param_groups, starts, strict=True):
            group["lr"] = start * (1 - done / length)
        try:
            losses.append(_iterate(optimizer, model, loss, batch, passes))
        except (NonFiniteError, torch.linalg.LinAlgError) as error:
            failure = str(error).partition(":")[0]
            break
    if isinstance(optimizer, EMSA):
        optimizer.detach()  # no later pilot is to be seen
    return Pilot(rate, length, tuple(losses), **passes, seconds=perf_counter() - began, failure=failure)


def _iterate(optimizer: torch.optim.Optimizer, model: nn.Module, loss: Loss, batch: Any,
             passes: dict[str, int]) -> float:
    """One step; the loss before it, the mean over processes. Raises NonFiniteError."""
    found: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            # a loss may take out of a batch what it needs
            value = loss(model, copy(batch) if isinstance(batch, MutableMapping | MutableSequence) else batch)
        passes["forward"] += 1
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            what = (f"shape {tuple(value.shape)}, {'' if value.requires_grad else 'no '}gradient" if
                    isinstance(value, Tensor) else type(value).__name__)
            raise ProblemError("find_lr: expected loss(model, batch) to give a scalar tensor with a "
                               f"gradient, found {what}")
        if not found:  # an optimizer may ask again, at trials, and judges those itself
            found.append(_over_processes(value.detach()))
            if not isfinite(found[0]):
                raise NonFiniteError(f"a loss of {found[0]}")
        value.backward()
        passes["backward"] += 1
        return value

    if isinstance(optimizer, _TAKE_A_CLOSURE):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()
    return found[0]


def _over_processes(value: Tensor) -> float:
    if is_alone():
        return float(value)
    total, count = summed(torch.stack([value.double().reshape(()),
                                       torch.ones_like(value, dtype=torch.float64).reshape(())]))
    return float(total / count)
