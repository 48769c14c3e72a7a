"""Polynomial-decay averages of the controls: what is evaluated and kept, while the steps go on from the last
controls.

With a step of constant length the controls end up circling a minimum, at a distance that the noise of the
batches sets. Their average lies nearer to it, and the window of

    a_k = (1 - c_k) a_{k-1} + c_k theta_k,   c_k = (eta + 1) / (k + eta)

grows with the number of steps k: about the last k / (eta + 1) of them count, so that there is no horizon to
be known. (Shamir and Zhang, ICML 2013, section 4.) When many count, every fourth control stands for the three
before it: 1 - c is then the product of four of these factors.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pontryagin.affine.precision import wide
from pontryagin.optim.addresses import Addresses
from pontryagin.optim.compiled import Compiled, is_own_memory, places_of, pointers
from pontryagin.optim.state import AverageState, Entries, States
from pontryagin.trajectory.local import local_part, local_parts

Known = Sequence[tuple[Tensor, AverageState]]
"""Parameters with their averages."""
AVERAGING = 8.0
"""eta: a window of the last ninth. With 4 or 16 the ends of benchmarks.defaults are no better."""
_OFTEN, _SELDOM = 256, 4
"""Steps after which controls enter seldom, for they change little from one step to the next, and in how
many."""


def known_of(group: dict[str, Any], states: States) -> Known:
    """The parameters of a group that have been trained, with their averages."""
    return [(parameter, AverageState(states[parameter]))
            for parameter in group["params"] if states.get(parameter)]


class Averages:
    """Takes controls into their averages, and shows these in the controls' place.

    A control that something else has written to since, such as model.load_state_dict, is where a new average
    begins.
    """

    def __init__(self) -> None:
        self._noted: dict[int, tuple[int, int, int]] = {}
        self._loops: dict[int, _Loop | None] = {}
        self._followed: Addresses | None = None
        self._is_followed = False  # whether what steps by these have written is still to be noted

    @torch.no_grad()
    def remember(self, found: Known, step: int, eta: float) -> None:
        """Take the controls after the k-th step into their averages, if it is time; one begins where it has
        none."""
        weight = entering(step, eta)
        averages, controls = [], []
        for (_, state), part in zip(found, local_parts([one for one, _ in found]), strict=True):
            mean = state.entries.get("mean_control")
            if mean is None or mean.dtype != wide(part.dtype):
                state.mean_control = part.detach().to(wide(part.dtype), copy=True)
            elif weight:
                averages.append(mean)
                controls.append(part if part.dtype == mean.dtype else part.to(mean.dtype))
        if averages:
            torch._foreach_lerp_(averages, controls, weight)
        self._note(found)

    def remember_at(self, addresses: Addresses, group: dict[str, Any], states: States) -> bool:
        """The same for the parameters of a group, in one compiled loop; whether that could be."""
        weight = entering(group["steps"], group["averaging"])
        if not weight:
            return True
        loop = self._loops.get(id(group))
        if loop is None or not loop.fits(addresses):
            loop = self._loops[id(group)] = _loop(addresses, group, states)
        if loop is not None:
            _FOLLOWED(addresses.controls[loop.places], loop.addresses, loop.sizes, addresses.like, weight)
        return loop is not None

    def written(self, addresses: Addresses | None) -> None:
        """A step has been taken, by these addresses or otherwise."""
        if addresses is not self._followed:
            self._catch_up()
        self._followed, self._is_followed = addresses, addresses is not None

    @property
    def _written(self) -> dict[int, tuple[int, int, int]]:
        """By the id of each parameter, its mark after what has been written to it here."""
        self._catch_up()
        return self._noted

    def _catch_up(self) -> None:
        """Steps by addresses leave no marks of their own until these are asked for, by few of them."""
        if self._is_followed and self._followed is not None:
            self._is_followed = False
            self._noted.update(self._followed.marks())

    def are_untouched(self, addresses: Addresses | None) -> bool:
        """Whether nothing but steps by these has written to controls, the last step too."""
        return addresses is not None and addresses is self._followed and addresses.is_untouched

    def show(self, found: Known) -> None:
        """Put the averages in the place of the controls, which are kept."""
        self.begin_anew(found)
        for parameter, state in found:
            if "mean_control" in state and "last_control" not in state:
                state.last_control = local_part(parameter).detach().clone()
                local_part(parameter).copy_(state.mean_control)
        self._note(found)

    def hide(self, found: Known) -> None:
        """The controls again, bit by bit."""
        # else it may have been moved, or changed its type
        self.begin_anew([one for one in found if not _is_shown(*one)])
        for parameter, state in found:
            if "last_control" in state:
                local_part(parameter).copy_(state.entries.pop("last_control"))
        self._note(found)

    def begin_anew(self, found: Known) -> None:
        """The average of a control that has been replaced is that control: a state has the same entries as
        before, which a distributed checkpoint is read into."""
        for (parameter, state), mark in zip(found, _marks([one for one, _ in found]), strict=True):
            if self._written.get(id(parameter), mark) == mark:
                continue
            state.entries.pop("last_control", None)
            if "mean_control" in state:
                part = local_part(parameter).detach()
                state.mean_control = part.to(wide(part.dtype), copy=True)

    def _note(self, found: Known) -> None:
        """What has been written."""
        parameters = [parameter for parameter, _ in found]
        self._written.update(zip(map(id, parameters), _marks(parameters), strict=True))


class _Loop(NamedTuple):
    """Of a group: the states of its parameters, their averages, the numbers of the former among the addresses
    that these are of, addresses of the latter, and sizes. known: the last two."""

    of: Addresses
    entries: list[Entries]
    means: list[Tensor]
    places: np.ndarray
    addresses: np.ndarray
    sizes: np.ndarray
    known: list[tuple[int, int]]

    def fits(self, addresses: Addresses) -> bool:
        """Whether averages are where they were."""
        return addresses is self.of and places_of(self.means) == self.known and all(
            entries.get("mean_control") is mean
            for entries, mean in zip(self.entries, self.means, strict=True))


def _loop(addresses: Addresses, group: dict[str, Any], states: States) -> _Loop | None:
    """None where some are to begin, lie otherwise than their controls, or have no gradients."""
    parameters = [parameter for parameter in group["params"] if states.get(parameter)]
    entries = [states[parameter] for parameter in parameters]
    means = [one.get("mean_control") for one in entries]
    if not parameters or not all(
            mean is not None and is_own_memory(mean) and mean.dtype is addresses.kind and mean.is_cpu
            and mean.shape == parameter.shape and id(parameter) in addresses.places
            for mean, parameter in zip(means, parameters, strict=True)):
        return None
    known = places_of(means)
    return _Loop(addresses, entries, means, np.array([addresses.places[id(one)] for one in parameters]),
                 np.array([address for address, _ in known]), np.array([size for _, size in known]), known)


_pointer: Any = None
_array: Any = None


def _followed(controls: np.ndarray, means: np.ndarray, sizes: np.ndarray, like: np.ndarray, weight: float
              ) -> None:
    """a <- a + weight (theta - a)."""
    new = like.dtype.type(weight)
    for n in range(len(sizes)):
        size = sizes[n]
        w, mean = _array(_pointer(controls[n], like), size), _array(_pointer(means[n], like), size)
        for i in range(size):
            mean[i] += new * (w[i] - mean[i])


_FOLLOWED = Compiled(_followed, pointers)


def entering(step: int, eta: float) -> float:
    """With what weight the control after the k-th step enters its average: 0 when it does not."""
    if step <= _OFTEN:
        return (eta + 1) / (step + eta)
    return 0.0 if step % _SELDOM else 1 - prod((step - n - 1) / (step - n + eta) for n in range(_SELDOM))


def _is_shown(parameter: Tensor, state: AverageState) -> bool:
    """Whether a parameter holds its average, wherever and in whatever type it lies by now."""
    if "last_control" not in state or "mean_control" not in state:
        return False
    part = local_part(parameter)
    shown = state.mean_control.to(state.last_control.dtype).to(part)
    return shown.shape == part.shape and torch.equal(shown, part)


def _marks(parameters: Sequence[Tensor]) -> list[tuple[int, int, int]]:
    """Of each what changes with every write to it, or to the part of it that lies here, which counts by
    itself, and with its storage."""
    return [(version := parameter._version, version if part is parameter else part._version, part.data_ptr())
            for parameter, part in zip(parameters, local_parts(parameters), strict=True)]
