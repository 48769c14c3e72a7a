"""What a step may promise: a share of what is left of the loss.

The decrease of J that a step predicts, mu = sum over parameters of <minus the gradient, change>, is its
Hamiltonian gain to first order. Where J is bounded below, no step can keep a promise of more than what is
left of it: one that makes it has left the region in which its model means anything, as in networks whose
activations bend at a thirtieth of a unit, or in chains of twenty stages whose changes add up. With
r = mu / (J - floor), mu of the step at full length, the step is multiplied by

    1 / (1 + (r / k)^2),    k = 0.35 + 1.25 (1 - J / J_0)^2,

J_0 the most that J has been: at first a step may promise a third of what is left, and more as J falls,
for then promises are of noise more and more. Far above k a step is the shorter the more it promises: what
promises ten times J is far out of the region of its model. In r the rate is the root of lr times the largest
that it has been, so that steps fall where a schedule lets lr fall. And a step is at most a tenth longer than
the one before: where a deep chain begins to die its promises vanish, and the steps that they would allow
kill it.
(Polyak 1969; stochastic: Loizou et al., AISTATS 2021.) Under the bound a step may be longer than lr, for it
binds where that would hurt, once J has fallen by a tenth of J_0.

mu is to be that of the mean gradient, without the batch's own noise, of which a direction made of that batch
promises much. So the batch counts for a fifth of it, the directions of the batches before for the rest:
mu = c/5 <G, d> + 4/5 |<G, v>|, d the new direction and v the mean of those before it, and the mean of the
last five steps is taken, as of J. Where momentum comes before the argmax, as in polar steps, it takes the
place of G. c = min(1, 50 samples / weights) of each stage: what a step along noise promises its own batch
grows with the number of weights for each sample, and what it does to other samples does not. (Without c, a
ResNet-18 of 11 million weights took a twentieth of its steps.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, log, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from pontryagin.errors import ProblemError
from pontryagin.optim.last_stage import grown, unit

OWN = 0.2
"""How much a batch's own direction counts."""
_EARLY, _SELDOM = 20, 2
"""Promises are measured in each of the first steps, then in every second."""
_SAMPLES = 50.0
"""So many weights for each sample are none too many."""
_MEMORY = 0.8
"""Of the running means of mu and J."""
_FIRST, _MORE = 0.35, 1.25
"""Of what is left of J: what a step of half its length promises at first, and what is added as J falls. Where
that is no more than 0.9 in the end, classifiers of all kinds end a tenth to a half higher; a physics-informed
network lower by far. With r to the power 1.5 twenty plain layers do not learn."""
_LEAST = 0.01
"""No step is cut to less: a loss that passes through 0 on its way down is not to come to rest there."""
_GROWTH, _SETTLED = 1.1, 5
"""How much longer a step may be than the one before it, and after how many steps. With 1.2 one of six chains
of twenty layers dies, as without; with 1.05 a ViT learns later."""
_FALLEN = 0.9
"""Of J_0. Of one seed of twenty layers with LayerNorm five runs of twelve died in their first steps, whose
rates differ by a millionth, and none since these are lr long at most."""
_ENORMOUS = 1e9
"""Whose square is finite."""
_STALE = 50
"""Steps after which a loss that has been seen says nothing any more."""


class Running(NamedTuple):
    """What lasts, in the first param group, as a plain tuple; () at first.

    slope: mu over lr, loss: J, each a sum with its weight. since: steps since J was seen. most: J_0.
    largest: lr. last: what the last stage promises at unit length, over lr, a sum with the weight of the
    slope; growth: of the unit of that stage (last_stage.py). place: that of its weight among all parameters,
    -1 where it is not known. length: what the last step was multiplied by, 0 before the first.
    """

    slope: float = 0.0
    slope_weight: float = 0.0
    loss: float = 0.0
    loss_weight: float = 0.0
    since: float = 0.0
    most: float = 0.0
    largest: float = 0.0
    last: float = 0.0
    growth: float = 0.0
    place: float = -1.0
    length: float = 0.0

    @property
    def known_loss(self) -> float:
        """J."""
        return self.loss / self.loss_weight


@dataclass(frozen=True)
class Bound:
    """How far a step may go where the loss is known, by step(loss=loss), a closure, or outputs with a .loss.

    stretch: the longest step, in units of lr, 1 or more, once the loss has fallen by a tenth; before, 1.
    floor: what the loss cannot fall below; as long as it lies there or lower, nothing is bounded, nor
    stretched.
    """

    stretch: float = 2.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not (1 <= self.stretch < inf and isfinite(self.floor)):
            raise ProblemError("Bound: expected stretch >= 1 and a floor, both finite, found "
                               f"{self.stretch!r} and {self.floor!r}")

    def note(self, running: Sequence[float]) -> str:
        """What a user is to know of the loss."""
        known = Running(*running)
        if known.loss_weight == 0 or known.since > _STALE:
            return "The loss is not known, so steps are lr long, whatever they promise: call step(loss=loss)."
        return "" if known.known_loss > self.floor else (
            f"The loss has fallen to {known.known_loss:.3g}, {self.floor:g} or less: steps are lr "
            "long, whatever they promise.")

    def outlook(self, running: Sequence[float], value: float | None, place: int | None = None) -> "Outlook":
        """Before a step. value: the loss, None where it is not known; place: of the last stage, None where
        nothing new is known of it."""
        slope, slope_weight, loss, weight, since, most, largest, last, growth, known_place, length = (
            running or Running(most=self.floor))
        if value is None:
            since += 1
        else:
            fresh = 1 - _MEMORY**(since + 1)
            loss += fresh * (value - loss)
            weight += fresh * (1 - weight)
            most, since = max(most, loss / weight), 0.0
        left, free, longest, longer = None, _FIRST, 1.0, 1.0
        if weight != 0 and since <= _STALE and (known := loss / weight) > self.floor:
            left = known - self.floor
            longest = self.stretch if left < _FALLEN * (most - self.floor) else 1.0
            longer = unit(left, last / slope_weight if slope_weight else 0.0, growth)
            free, growth = free_share(left / (most - self.floor)), log(longer)
        return Outlook(Running(slope, slope_weight, loss, weight, since, most, largest, last, growth,
                               known_place if place is None else float(place), length),
                       left, free, longest, longer)


class Outlook(NamedTuple):
    """What is known before a step. left: of J; None where it is not known, or at its floor. free: the share
    of it that a step of half its length promises. longest: in units of lr. unit: of the last stage."""

    running: Running
    left: float | None = None
    free: float = _FIRST
    longest: float = 1.0
    unit: float = 1.0

    def is_measured(self, steps: int) -> bool:
        """Whether a step after so many is to tell what it promises."""
        unknown = self.running.slope_weight == 0
        return self.left is not None and (unknown or steps < _EARLY or steps % _SELDOM == 0)

    def length(self, promise: "Promise | None", lr: float, steps: int) -> tuple[Running, float]:
        """(what lasts, what a step of this rate is multiplied by). promise: None where it is not measured, or
        gradients are 0, so that momentum runs out at the length it had; steps: before this one."""
        if self.left is None:
            return self.running, 1.0
        slope, weight, loss, loss_weight, since, most, largest, last, growth, place, before = self.running
        largest = max(largest, lr)
        if promise is not None and lr > 0:
            fresh = 1 - _MEMORY**(1 if steps < _EARLY else _SELDOM)
            slope += fresh * (promise.total / lr - slope)
            weight += fresh * (1 - weight)
            last += fresh * (promise.last / lr - last)
            growth = grown(growth, promise.last, promise.along)
        promised = slope / weight * sqrt(lr * largest) * self.longest / self.left if weight else 0.0
        found = self.longest * allowed(promised, self.free)
        if before and steps >= _SETTLED:
            found = min(found, _GROWTH * before)
        return Running(slope, weight, loss, loss_weight, since, most, largest, last, growth, place,
                       found), found


PARTS = 4
"""Numbers of a Promise, sums over stages."""


class Asked(NamedTuple):
    """Of a step. longest: what it may be multiplied by and still reach no further than weights allow; None:
    wherever it leads. promised: whether to tell what it promises. last: the id of the weight of the last
    stage, whose unit this is. refresh: whether what changes slowly is to be seen anew; looked: whether what
    changes less so is."""

    longest: float | None = None
    promised: bool = False
    last: int | None = None
    unit: float = 1.0
    refresh: bool = False
    looked: bool = False


class Promise(NamedTuple):
    """Of a step: what it is sure of, and <G, v> of all stages; of the last stage <G, d> and <G, v>, both at
    unit length."""

    sure: float = 0.0
    past: float = 0.0
    last: float = 0.0
    along: float = 0.0

    @property
    def total(self) -> float:
        """The decrease of the loss that it predicts."""
        return self.sure + abs(self.past)


def products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Of stacked tensors, group by group: sums over all axes but the first, one after the other."""
    return torch.cat([torch.dot(one.reshape(-1), other.reshape(-1)).unsqueeze(0) if len(one) == 1 else
                      torch.linalg.vecdot(one.flatten(1), other.flatten(1))
                      for one, other in zip(left, right, strict=True)])


def certain(samples: float, inputs: int, outputs: int) -> float:
    """c: what part of the promise of a step counts that is made of one batch."""
    return min(1.0, _SAMPLES * samples / (inputs * outputs))


def free_share(left: float) -> float:
    """k. left: of J, over the most that it has been."""
    return _FIRST + _MORE * (1 - left)**2


def allowed(promised: float, free: float) -> float:
    """What a step is multiplied by that promises this part of what is left of J, where `free` of it makes it
    half as long."""
    return max(1 / (1 + min(promised / free, _ENORMOUS)**2), _LEAST)


def check_running(running: object) -> None:
    """Raise ProblemError for what is no such state."""
    numbers = len(Running._fields)
    if not (isinstance(running, tuple | list) and len(running) in (0, numbers)
            and all(isinstance(number, float) and isfinite(number) for number in running)):
        raise ProblemError(f"EMSA promise: expected {numbers} finite numbers or none, found {running!r}")
