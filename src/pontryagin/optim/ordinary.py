"""The ordinary step: between two looks, of a model of packs, and of what AdamW trains, whose gradients and
controls are read and written by addresses.

Most steps are such, and of small models nearly all their time goes by in Python. So what a step looks up, and
what lasts from one look to the next, has been looked up when the plan was made, and what is left is a list of
calls. They do what those of any step do, in the same order: the results are bitwise the same.
"""

from collections.abc import Sequence
from itertools import chain
from math import isfinite
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.autograd.graph import increment_version

from pontryagin.optim.adamw_step import AdamWStep
from pontryagin.optim.addresses import Addresses
from pontryagin.optim.group import Groups
from pontryagin.optim.moves import pull
from pontryagin.optim.pack_step import PackStep
from pontryagin.optim.polar_pack_step import PolarPackStep
from pontryagin.optim.promise import Outlook, Promise
from pontryagin.optim.state import States


@runtime_checkable
class Repeated(Protocol):
    """A step that can be made again, of a gradient by the same addresses."""

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """All that it moves."""

    def is_ready(self, groups: Groups, states: States, addresses: Addresses) -> bool:
        """Whether it can be made now."""

    def propose_again(self, groups: Groups, longest: float, last: int | None, unit: float, is_promised: bool
                      ) -> tuple[float, float, float, float, float]:
        """(A Promise, what is finite where directions are); nothing has been changed. longest to is_promised:
        see Asked."""

    def take_again(self, groups: Groups, length: float) -> None:
        """So much of what has been proposed: of controls and state."""


class Ordinary:
    """Of the steps of a plan. addresses: of all gradients and controls."""

    def __init__(self, steps: Sequence[Repeated], addresses: Addresses) -> None:
        self._steps, self.addresses = steps, addresses
        self._parameters = list(chain.from_iterable(step.parameters for step in steps))

    def is_one(self, groups: Groups, states: States) -> bool:
        """Whether this step is ordinary too, as far as parameters, gradients and stages are concerned."""
        return self.addresses.look(groups, states) and all(
            step.is_ready(groups, states, self.addresses) for step in self._steps)

    def propose(self, groups: Groups, outlook: Outlook, is_promised: bool) -> Promise | None:
        """What the step promises, of which nothing has been changed; None where it is not finite."""
        place, last = int(outlook.running.place), None
        if place >= 0:
            last = self.addresses.id_of(place)
        longest, unit = outlook.longest, outlook.unit
        sure = past = of_last = along = 0.0
        for step in self._steps:
            own, before, direction, momentum, size = step.propose_again(groups, longest, last, unit,
                                                                        is_promised)
            if not isfinite(size):
                return None
            sure, past, of_last, along = sure + own, past + before, of_last + direction, along + momentum
        return Promise(sure, past, of_last, along)

    def take(self, groups: Groups, length: float) -> None:
        """So much of it."""
        for group in groups:
            if decay := float(group["weight_decay"]):
                with torch.no_grad():
                    pull([one for one in group["params"] if id(one) in self.addresses.places],
                         float(group["lr"]) * decay * length)
        for step in self._steps:
            step.take_again(groups, length)
        increment_version(self._parameters)


def ordinary(steps: Sequence[object], others: AdamWStep | None, addresses: Addresses | None
             ) -> Ordinary | None:
    """None where not all that has a gradient is moved by such steps."""
    found: list[Repeated] = [step for step in steps if isinstance(step, PackStep | PolarPackStep)]
    if addresses is None or len(found) < len(steps):
        return None
    found += [] if others is None else [others]
    moved = sorted(id(one) for step in found for one in step.parameters)
    return Ordinary(found, addresses) if moved == sorted(addresses.places) else None
