"""The step of what is maximized in no affine stage: AdamW, in three loops over all numbers where these are
compiled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from pontryagin.affine.precision import extended
from pontryagin.optim import adamw
from pontryagin.optim.addresses import Addresses
from pontryagin.optim.compiled import Compiled, is_own_memory, places_of, pointers
from pontryagin.optim.gradients import dense
from pontryagin.optim.group import Groups
from pontryagin.optim.moves import Moves, pull
from pontryagin.optim.numbers import Numbers
from pontryagin.optim.promise import PARTS, Asked
from pontryagin.optim.share import Share
from pontryagin.optim.state import Entries, States
from pontryagin.trajectory.local import local_part

_pointer: Any = None
_array: Any = None


def _directed(gradients: np.ndarray, moments: np.ndarray, changes: np.ndarray, sizes: np.ndarray,
              rates: np.ndarray, like: np.ndarray, found: np.ndarray) -> None:
    """d of all parameters, and of each <G, d> and what is finite where d is. gradients, changes: addresses;
    moments: those of the first, the second, and the number of updates; rates: what new gradients weigh in
    either moment, and eps."""
    kind, single = like.dtype.type, np.zeros(0, np.float32)
    fresh, fresh_square, eps = kind(rates[0]), kind(rates[1]), kind(rates[2])
    for n in range(len(sizes)):
        count = _array(_pointer(moments[2, n], single), 1)[0] + 1.0
        of_first = kind((1.0 - rates[0])**count - 1.0)
        of_second = kind(1.0 - (1.0 - rates[1])**count)
        size = sizes[n]
        g, d = _array(_pointer(gradients[n], like), size), _array(_pointer(changes[n], like), size)
        m, v = _array(_pointer(moments[0, n], like), size), _array(_pointer(moments[1, n], like), size)
        product, whole = 0.0, 0.0
        for i in range(size):
            mean = m[i] + fresh * (g[i] - m[i])
            square = v[i] + fresh_square * (g[i] * g[i] - v[i])
            own = mean / of_first / (np.sqrt(square / of_second) + eps)
            d[i] = own
            product += np.float64(g[i]) * np.float64(own)
            whole += np.float64(own)
        found[0, n], found[1, n] = product, whole


def _remembered(gradients: np.ndarray, moments: np.ndarray, sizes: np.ndarray, rates: np.ndarray,
                like: np.ndarray) -> None:
    """The moments take in the gradients."""
    kind, single = like.dtype.type, np.zeros(0, np.float32)
    fresh, fresh_square = kind(rates[0]), kind(rates[1])
    for n in range(len(sizes)):
        _array(_pointer(moments[2, n], single), 1)[0] += np.float32(1)
        size = sizes[n]
        g = _array(_pointer(gradients[n], like), size)
        m, v = _array(_pointer(moments[0, n], like), size), _array(_pointer(moments[1, n], like), size)
        for i in range(size):
            m[i] += fresh * (g[i] - m[i])
            v[i] += fresh_square * (g[i] * g[i] - v[i])


def _added(controls: np.ndarray, changes: np.ndarray, sizes: np.ndarray, like: np.ndarray, factor: float
           ) -> None:
    """W <- W + factor d."""
    own = like.dtype.type(factor)
    for n in range(len(sizes)):
        size = sizes[n]
        w, d = _array(_pointer(controls[n], like), size), _array(_pointer(changes[n], like), size)
        for i in range(size):
            w[i] += own * d[i]


_DIRECTED, _REMEMBERED, _ADDED = (Compiled(each, pointers) for each in (_directed, _remembered, _added))
_NAMES = "first", "second", "updates"
_RATES = np.array([1 - adamw.BETAS[0], 1 - adamw.BETAS[1], adamw.EPS])


@dataclass(eq=False)
class Update:
    """A step that has not been taken. new: entries of the state, None where loops make them. promise: one or
    more, side by side. size: finite where all changes are."""

    step: "AdamWStep"
    changes: list[Tensor]
    new: list[Entries] | None
    promise: Sequence[Numbers] | None
    size: float | None = None

    def sizes(self) -> list[Numbers]:
        """Single numbers, finite where the changes are."""
        if self.size is not None:
            return [self.size]
        return [torch.linalg.vector_norm(change) for change in self.changes if change.numel()]

    @property
    def names(self) -> str:
        """Of the parameters whose changes are not finite."""
        return ", ".join(name for name, change in zip(self.step.names, self.changes, strict=True)
                         if not change.isfinite().all())


class AdamWStep:
    """Of all these parameters. groups: the number of the param group of each."""

    def __init__(self, parameters: Sequence[nn.Parameter], names: Sequence[str], groups: Sequence[int]
                 ) -> None:
        self._parameters, self.names, self._groups = parameters, names, groups
        self._addresses: Addresses | None = None
        self._loops: _Loops | None = None
        self._of_groups = [(number, [n for n, one in enumerate(groups) if one == number])
                           for number in sorted(set(groups))]

    def bind(self, addresses: Addresses | None) -> None:
        """Of all gradients and controls, where there are such."""
        self._addresses = addresses

    def propose(self, groups: Groups, states: States, largest: Mapping[int, float], asked: Asked,
                share: Share) -> Update:
        """Nothing has been changed. largest: by the id of a parameter, the largest entry of its gradient."""
        rates = self._rates(groups)
        if (loops := self._known_loops(states)) is not None:
            products, size = loops.directions()
            if isfinite(size):
                slope = _slope(rates, products)
                return Update(self, loops.changes, None, _promise(slope) if asked.promised else None, size)
        changes, new = adamw.directions(
            [adamw.current(states[one], local_part(one)) for one in self._parameters],
            [local_part(one.grad) for one in self._parameters],  # type: ignore[arg-type]
            [largest[id(one)] for one in self._parameters])
        counted = [n for n, one in enumerate(self._parameters) if share.counts(one)] if asked.promised else []
        slopes = [_product(self._parameters[n], changes[n]) * -rates[n] for n in counted]
        return Update(self, changes, new, _promise(*slopes) if slopes else None)

    def take(self, update: Update, groups: Groups, states: States) -> list[Moves]:
        """The changes of all parameters; the state is updated."""
        loops = self._loops if update.new is None else None
        if loops is not None:
            loops.remember()
        for parameter, new in zip(self._parameters, update.new or (), strict=False):
            states[parameter].update(new)
        moves = []
        for number, own in self._of_groups:
            parameters: list[Tensor] = [self._parameters[n] for n in own]
            changes = [torch.view_as_complex(update.changes[n]) if one.is_complex() else update.changes[n]
                       for n, one in zip(own, parameters, strict=True)]
            moves.append(Moves.of(parameters, changes, groups[number], float(groups[number]["adamw_lr"]),
                                  None if loops is None else loops.place(own)))
        return moves

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """All that it moves."""
        return self._parameters

    def is_ready(self, _: Groups, states: States, addresses: Addresses) -> bool:
        """Of ordinary.Repeated, as the next ones."""
        return self._addresses is addresses and self._known_loops(states) is not None

    def propose_again(self, groups: Groups, longest: float, last: int | None, unit: float, is_promised: bool
                      ) -> tuple[float, float, float, float, float]:
        """What `propose` does by loops."""
        assert self._loops is not None
        products, size = self._loops.directions()
        return (_slope(self._rates(groups), products) if is_promised else 0.0), 0.0, 0.0, 0.0, size

    def take_again(self, groups: Groups, length: float) -> None:
        """What `take` does, and the moves."""
        assert self._loops is not None
        self._loops.remember()
        for number, own in self._of_groups:
            group, lr = groups[number], float(groups[number]["lr"])
            pull([self._parameters[n] for n in own], lr * float(group["weight_decay"]) * length)
            self._loops.add(own, float(group["adamw_lr"]) * lr * length)

    def _rates(self, groups: Groups) -> list[float]:
        """Of each parameter."""
        return [float(groups[number]["lr"]) * float(groups[number]["adamw_lr"]) for number in self._groups]

    def _known_loops(self, states: States) -> "_Loops | None":
        """None where they cannot be taken in this step."""
        if self._addresses is None or not self._addresses.is_fresh:
            return None
        if self._loops is None or not self._loops.fit(self._addresses, states):
            self._loops = _looped(self._parameters, self._addresses, states)
        return self._loops


class _Loops:
    """Over the numbers of parameters whose states lie where they did."""

    def __init__(self, parameters: Sequence[nn.Parameter], addresses: Addresses,
                 moments: Sequence[Sequence[Tensor]]) -> None:
        self._parameters, self._addresses = parameters, addresses
        tensors = [one for each in moments for one in each]
        self._kept = tensors, places_of(tensors)
        self.changes = [torch.empty_like(one) for one in moments[0]]
        self._places = np.array([addresses.places[id(one)] for one in parameters])
        self._sizes = np.array([one.numel() for one in parameters])
        self._moments = np.array([[one.data_ptr() for one in each] for each in moments])
        self._changes = np.array([one.data_ptr() for one in self.changes])
        self._found = np.zeros((2, len(parameters)))

    def fit(self, addresses: Addresses, states: States) -> bool:
        """Whether they still are those of these states, which lie where they did."""
        if addresses is not self._addresses:
            return False
        tensors, places = self._kept
        known = [states[one].get(name) for name in _NAMES for one in self._parameters]
        return all(map(is_, known, tensors)) and places_of(tensors) == places

    def directions(self) -> tuple[list[float], float]:
        """(Of each parameter <G, d>, what is finite where all changes are)."""
        _DIRECTED(self._addresses.gradients[self._places], self._moments, self._changes, self._sizes, _RATES,
                  self._addresses.like, self._found)
        return self._found[0].tolist(), float(self._found[1].sum())

    def remember(self) -> None:
        """The moments take in the gradients."""
        _REMEMBERED(self._addresses.gradients[self._places], self._moments, self._sizes, _RATES,
                    self._addresses.like)

    def add(self, numbers: Sequence[int], factor: float) -> None:
        """So much of the changes to these parameters, of which torch is not told."""
        _ADDED(self._addresses.controls[self._places[numbers]], self._changes[numbers], self._sizes[numbers],
               self._addresses.like, factor)

    def place(self, numbers: Sequence[int]) -> Callable[[float], None]:
        """What adds so much of the changes to these parameters."""
        def added(factor: float) -> None:
            self.add(numbers, factor)
            increment_version([self._parameters[n] for n in numbers])
        return added


def _looped(parameters: Sequence[nn.Parameter], addresses: Addresses, states: States) -> _Loops | None:
    """None where a state does not lie like its parameter, in units of 1."""
    known = [adamw.AdamWState(states[one]) for one in parameters]
    if not all("first" in state and _is_like(state, one, addresses.kind)
               for state, one in zip(known, parameters, strict=True)):
        return None
    return _Loops(parameters, addresses, [[state.entries[name] for state in known] for name in _NAMES])


def _is_like(state: adamw.AdamWState, parameter: nn.Parameter, kind: torch.dtype) -> bool:
    return (state.unit.item() == 1 and state.updates.dtype is torch.float32 and state.updates.is_cpu and all(
        one.is_cpu and is_own_memory(one) and one.shape == parameter.shape and one.dtype is kind
        for one in (state.first, state.second)))


def _slope(rates: Sequence[float], products: Sequence[float]) -> float:
    """Of the loss, downwards. products: <G, d> of each."""
    return -sum(rate * own for rate, own in zip(rates, products, strict=True))


def _promise(*slopes: Numbers) -> list[Numbers]:
    """One for each, of which little is noise."""
    return [number for slope in slopes for number in (slope, *[0.0] * (PARTS - 1))]


def _product(parameter: nn.Parameter, change: Tensor) -> Tensor:
    """<G, d>."""
    gradient = dense(local_part(parameter.grad))  # type: ignore[arg-type]
    gradient = torch.view_as_real(gradient) if gradient.is_complex() else gradient
    return (gradient.to(change.dtype) * change).sum(dtype=extended(change))
