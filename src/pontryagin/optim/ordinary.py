"""The ordinary step: between two looks, where gradients and controls are read and written by addresses.

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
from pontryagin.optim.joined import Proposal
from pontryagin.optim.numbers import quiet, read
from pontryagin.optim.pack_step import PackStep
from pontryagin.optim.polar_pack_step import PolarPackStep
from pontryagin.optim.polar_step import PolarStep
from pontryagin.optim.promise import PARTS, Asked, Outlook, Promise
from pontryagin.optim.row_step import RowStep
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


class _Whole:
    """Of a step of stages that are in no pack, such as tables of embeddings: what any step does."""

    def __init__(self, step: RowStep | PolarStep, addresses: Addresses) -> None:
        self._step, self._addresses = step, addresses
        self._proposed: Proposal | None = None
        self.parameters = [one for stage in step.joined.stages for one in (stage.weight, stage.bias)
                           if one is not None]

    def is_ready(self, _: Groups, __: States, addresses: Addresses) -> bool:
        """Of Repeated, as the next ones."""
        return self._addresses is addresses

    @torch.no_grad()
    def propose_again(self, groups: Groups, longest: float, last: int | None, unit: float, is_promised: bool
                      ) -> tuple[float, float, float, float, float]:
        """What `propose` does."""
        with quiet():
            found = self._proposed = self._step.propose(groups, self._addresses.sizes(), Asked(
                longest, is_promised, last, unit))
            size = sum(read(found.sizes()))
            sure, past, of_last, along = read(found.promise) if found.promise is not None else [0.0] * PARTS
        return sure, past, of_last, along, size

    @torch.no_grad()
    def take_again(self, groups: Groups, length: float) -> None:
        """What `take` does, and the moves."""
        assert self._proposed is not None
        with quiet():
            for one in self._step.take(self._proposed, groups):
                one.apply(length)


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
        for step in self._steps:
            step.take_again(groups, length)
        increment_version(self._parameters)


def ordinary(steps: Sequence[RowStep | PolarStep], others: AdamWStep | None, addresses: Addresses | None
             ) -> Ordinary | None:
    """None where not all that has a gradient is moved by such steps."""
    if addresses is None:
        return None
    found: list[Repeated] = [step if isinstance(step, PackStep | PolarPackStep) else _Whole(step, addresses)
                             for step in steps]
    found += [] if others is None else [others]
    moved = sorted(id(one) for step in found for one in step.parameters)
    return Ordinary(found, addresses) if moved == sorted(addresses.places) else None
