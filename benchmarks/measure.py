"""What the benchmarks share: EMSA and its rivals as they come, one training of a family, steps timed in
turn."""

import math
import traceback
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from time import perf_counter, process_time

import torch
from torch import Generator, nn

from benchmarks.zoo.family import Family
from pontryagin.optim import EMSA

METHODS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "EMSA": EMSA,
    "AdamW 1e-3": lambda model: torch.optim.AdamW(model.parameters(), 1e-3),
    "AdamW 3e-3": lambda model: torch.optim.AdamW(model.parameters(), 3e-3),
}
_LAST = 5
"""How many losses are averaged at the end."""
_GRADIENT = 1e-6
"""A parameter whose gradient is below this may stay where it is: 1 + lr * 1e-8 is 1 in float32."""


@dataclass(frozen=True)
class Outcome:
    """Of one run. failure: why there are no losses, in a line. left: the sizes of the parameters that EMSA
    left to AdamW, by the class of the module that holds them."""

    loss: float = math.nan
    held_out: float = math.nan
    milliseconds: float = math.nan
    parameters: int = 0
    left: Counter[str] = field(default_factory=Counter)
    failure: str = ""


def left_to_adamw(model: nn.Module, optimizer: EMSA) -> dict[str, nn.Parameter]:
    """The parameters that EMSA trains by AdamW, by name: in stages() they are rows of their own."""
    names = {row.name for row in optimizer.stages().rows if row.maximized.startswith("AdamW")}
    return {name: parameter for name, parameter in _trained(model).items() if name in names}


def unmoved(model: nn.Module, before: dict[str, torch.Tensor]) -> list[str]:
    """The parameters that have a gradient, and are where they were before."""
    return [name for name, parameter in _trained(model).items()
            if parameter.grad is not None and parameter.grad.abs().max() > _GRADIENT
            and torch.equal(parameter, before[name])]


def attempt(family: Family, method: str, seed: int, steps: int) -> Outcome:
    """train, or what it raised, in a line; the traceback goes to stderr."""
    try:
        return train(family, method, seed, steps)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        return Outcome(failure=f"crash: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}")


def train(family: Family, method: str, seed: int, steps: int) -> Outcome:
    """A fresh model through so many steps."""
    torch.manual_seed(seed)
    model = family.build().train()
    before = {name: parameter.detach().clone() for name, parameter in _trained(model).items()}
    parts = family.parts(model)
    optimizers, batches = [METHODS[method](part) for part in parts], Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of dropout
    losses, seconds = [], 0.0
    for step in range(steps):
        batch = family.draw(batches)
        began = process_time()
        losses.append(family.iterate(family, model, batch, optimizers))
        seconds += process_time() - began
        if not math.isfinite(losses[-1]):
            return Outcome(failure=f"not finite: the loss of step {step + 1} is {losses[-1]}")
    if still := unmoved(model, before):
        return Outcome(failure=f"not moved: {', '.join(still)}")
    left: Counter[str] = Counter()
    for part, optimizer in zip(parts, optimizers, strict=True):
        if isinstance(optimizer, EMSA):
            for name, parameter in left_to_adamw(part, optimizer).items():
                left[owner(part, name)] += parameter.numel()
            optimizer.eval()
    return Outcome(fmean(losses[-_LAST:]), family.held_out(family, model.eval()), 1e3 * seconds / steps,
                   sum(map(torch.numel, before.values())), left)


def owner(model: nn.Module, name: str) -> str:
    """The class of the module that a parameter belongs to."""
    path, found, _ = name.partition(".parametrizations.")
    path = path if found else name.rpartition(".")[0]
    return type(model.get_submodule(path)).__name__


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def in_turn(steps: Mapping[str, Callable[[], object]], rounds: int,
            clock: Callable[[], float] = perf_counter) -> dict[str, list[float]]:
    """Seconds of every step in each round; they take turns, so that a noisy machine is fair to all."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = clock()
            step()
            seconds[name].append(clock() - began)
    return seconds


def known(options: ArgumentParser, what: str, names: Sequence[str], among: Iterable[str]) -> list[str]:
    """The names, all if there are none; an unknown one ends the program with a line."""
    expected = list(among)
    if unknown := [name for name in names if name not in expected]:
        options.error(f"unknown {what} {unknown[0]!r}: expected one or more of "
                      f"{', '.join(map(repr, expected))}")
    return list(names) or expected


def middle(values: Iterable[float], form: str = ".4g") -> str:
    """The median."""
    return f"{median(values):{form}}"
