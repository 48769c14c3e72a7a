"""The step by rows of one pack on the CPU, where it is compiled: two products, and two calls for the rest."""

from collections.abc import Callable, Mapping
from functools import partial
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from pontryagin.optim.addresses import Addresses
from pontryagin.optim.compiled import (
    Compiled,
    measured,
    nesterov,
    nesterov_placed,
    promised,
    scaled,
    weighted_squares,
)
from pontryagin.optim.fading import is_mild, within
from pontryagin.optim.group import Groups
from pontryagin.optim.joined import Proposal, without_denormals_
from pontryagin.optim.moves import Moves, pull
from pontryagin.optim.numbers import of, quiet, spread, write
from pontryagin.optim.packed import Pack
from pontryagin.optim.packed_metric import Calls
from pontryagin.optim.promise import Asked
from pontryagin.optim.row_lengths import (
    ARRAYS,
    Known,
    Layout,
    found_rows,
    row_lengths,
    row_promises,
)
from pontryagin.optim.row_step import RowStep
from pontryagin.optim.state import StageState, States

ROWS = "own", "root", "inside", "square", "long_square", "new_square", "new_long_square"
"""What `finished` has of every output in one array: the length of its row before it was whitened, R_ii, 1
where there is no padding, the running means, and what they will be."""
PARTS = ("lengths", "silent", "certain", "shift", "limit", "longer", "square_weight", "peak",
         "new_square_weight", "new_peak", "norm", "own", "along", "reach")
"""And of every part: its outputs, two numbers of RowStep, what |dW|^2 counts less, the limit of its norm,
what it is multiplied by, the running means and what they will be, |d|, lr <G, d> and lr <G, v>, and the
largest norm of a change."""
NUMBERS = "rho_decay", "steps", "momentum", "lr", "sure", "before", "size", "longest"
"""Of all: steps with this one, the first two of a Promise, one that is finite where directions are, and the
rate at which steps are to be within their reach, 0 for none."""


def finished(right: np.ndarray, change: np.ndarray, outside: np.ndarray, gradient: np.ndarray,
             mean: np.ndarray, velocity: np.ndarray, inputs: int, sums: np.ndarray, rows: np.ndarray,
             parts: np.ndarray, numbers: np.ndarray, places: np.ndarray, seen: np.ndarray, worth: np.ndarray,
             is_half: bool, is_whitened: bool, is_promised: bool) -> None:
    """What is left to do of a step of one pack when its argmax is known, but for what it has outside of a
    subspace: the change is made as long as it is to be, and what is known of it written beside what was
    given. outside, seen, worth: see Pack and Solved; gradient, mean: as `promised` asks for them."""
    groups, outputs, _ = change.shape
    segments = Layout(places, rows[2], parts[0])
    rho_decay, steps, lr = numbers[0], int(numbers[1]), numbers[3]
    measured(right, change, outside, inputs, sums)
    if len(seen):
        weighted_squares(seen, worth, sums[2])
        is_half = False
    square, norm, share = found_rows(sums.reshape(5, groups * outputs), rows[0], rows[1],
                                     spread(segments, parts[3]), is_half)
    if not is_whitened:
        share[:] = 1.0
    scale, size, new = row_lengths(Known(rows[3], rows[4], parts[6], parts[7]), square, norm, share, None,
                                   rho_decay, steps, segments, parts[1])
    write(new.square, rows[5])
    write(new.long_square, rows[6])
    write(new.square_weight, parts[8])
    write(new.peak, parts[9])
    write(size, parts[10])
    for n in range(len(size)):
        parts[4, n] = parts[13, n] / numbers[7] if numbers[7] > 0 else np.inf
    narrow = (scale * spread(segments, within(size, parts[4]) * parts[5])).astype(change.dtype)
    if is_promised:
        promised(change, narrow.reshape(groups, outputs), gradient, mean, velocity, parts[11:13])
        numbers[4], numbers[5], along = row_promises(parts[11] * lr, parts[12] * lr, parts[6], parts[2],
                                                     numbers[2], steps - 1)
        write(parts[11] * lr, parts[11])
        write(along, parts[12])
    else:
        scaled(change, narrow.reshape(groups, outputs))
    numbers[6] = size.sum() + sums[4].sum()


_FINISHED = Compiled(finished, ARRAYS | {
    "measured": measured, "promised": promised, "scaled": scaled,
    "weighted_squares": weighted_squares})


def taken(velocity: np.ndarray, change: np.ndarray, kept: np.ndarray, rows: np.ndarray, parts: np.ndarray,
          controls: np.ndarray, places: np.ndarray, factor: float) -> None:
    """A step that `finished` has made is taken, and controls are moved by so much of it."""
    nesterov_placed(controls, places, velocity, change, kept, factor)
    for n in range(rows.shape[1]):
        rows[3, n], rows[4, n] = rows[5, n], rows[6, n]
    for n in range(parts.shape[1]):
        parts[6, n], parts[7, n] = parts[8, n], parts[9, n]


_TAKEN = Compiled(taken, {"nesterov_placed": nesterov_placed})


class _Again(NamedTuple):
    """A step between two looks, with all that it looks up looked up. made_of: see Pack; settings: damping and
    exponent of the param group. calls: what proposes it, without a promise and with it; take: what takes
    it, and moves controls by so much."""

    made_of: tuple[object, object, object]
    settings: tuple[Any, Any]
    calls: tuple[Calls, Calls]
    take: Callable[[float], None]


class PackStep(RowStep):
    """As a RowStep, which it is where a gradient is out of range or an input does not vary."""

    def __init__(self, pack: Pack) -> None:
        super().__init__([pack])
        self._pack, segments = pack, self.joined.segments
        self._rows, self._parts = (np.zeros((len(names), size)) for names, size in (
            (ROWS, len(segments)), (PARTS, len(segments.lengths))))
        self._numbers, self._places = np.zeros(len(NUMBERS)), segments.places
        self._rows[2], self._parts[0] = segments.inside, segments.lengths
        self._parts[1], self._parts[2], self._parts[5] = self._silent, self._certain, 1.0
        for name in ("square", "long_square"):
            self.joined.move(name, self._rows[ROWS.index(name)])
        for name in ("square_weight", "peak"):
            self.joined.move(name, self._parts[PARTS.index(name)])
        self._sums = np.zeros((5, pack.count, pack.outputs))
        self._velocity, self._kept = of(pack.velocity), np.zeros(1, pack.change_array.dtype)
        self._parts[13] = self.joined.state.reach
        self._longer: tuple[int | None, float] | None = None  # for which `longer` was written last
        self._again: _Again | None = None
        self._reached: StageState | None = None  # what `propose_again` has found, for the state

    @property
    def parameters(self) -> list[Any]:
        """All that it moves."""
        return self._pack.parameters

    def is_ready(self, groups: Groups, _: States, addresses: Addresses) -> bool:
        """Of Repeated, as the next ones."""
        pack, own = self._pack, groups[self.joined.first.groups[0]]
        known, settings = self._again, (own["damping"], own["exponent"])
        if known is not None and known.settings == settings and all(map(is_, known.made_of, pack.made_of)):
            return True
        damping, exponent = settings[0], self.joined.exponent(groups)
        if pack.fresh is not addresses or pack.is_unseen or pack.learns(exponent, False) or (
                not pack.is_compiled(damping, exponent)):
            return False
        right, _, worth = pack.solved(damping, exponent, self._rows, self._parts[3])
        begin, seen = pack.solving(addresses, self._rows)
        finish = partial(_FINISHED.direct, right, pack.change_array, pack.outside, *pack.centred,
                         self._velocity, pack.inputs, self._sums, self._rows, self._parts, self._numbers,
                         self._places, seen, worth, exponent < 1, pack.is_whitened)
        self._again = _Again(
            pack.made_of, settings, ((*begin, partial(finish, False)), (*begin, partial(finish, True))),
            partial(_TAKEN.direct, self._velocity, pack.change_array, self._kept, self._rows, self._parts,
                    addresses.controls, pack.places))
        return True

    def propose_again(self, groups: Groups, longest: float, last: int | None, unit: float, is_promised: bool
                      ) -> tuple[float, float, float, float, float]:
        """What `propose` does."""
        joined, numbers, parts, again = self.joined, self._numbers, self._parts, self._again
        assert again is not None
        own = groups[joined.first.groups[0]]
        steps, lr = own["steps"], float(own["lr"])
        numbers[0], numbers[1], numbers[2], numbers[3] = own["rho_decay"], steps + 1, own["momentum"], lr
        self._reached = None
        if joined.is_reach_due(steps):
            self._reached = StageState({})
            with quiet():
                parts[13] = joined.reach(self._reached)
        numbers[7] = longest * lr
        place = joined.last(last)
        if self._longer != (place, unit):
            self._longer, parts[5] = (place, unit), 1.0
            if place is not None:
                parts[5, place] = unit
        for call in again.calls[is_promised]:
            call()
        _, _, _, _, sure, before, size, _ = numbers.tolist()
        if place is None or not is_promised:
            return sure, before, 0.0, 0.0, size
        return sure, before, float(parts[11, place]) / unit, float(parts[12, place]) / unit, size

    def take_again(self, groups: Groups, length: float) -> None:
        """What `take` does, and the move."""
        own, again = groups[self.joined.first.groups[0]], self._again
        assert again is not None
        if self._reached is not None:
            self.joined.renew(self._reached)
            self._reached = None
        self._kept[0], lr = own["momentum"], float(own["lr"])
        pull(self._pack.parameters, lr * float(own["weight_decay"]) * length)
        again.take(-lr * length)

    def propose(self, groups: Groups, largest: Mapping[int, float], asked: Asked) -> Proposal:
        """As that of RowStep."""
        joined, pack, own = self.joined, self._pack, groups[self.joined.first.groups[0]]
        damping, exponent, lr, parts = own["damping"], joined.exponent(groups), float(own["lr"]), self._parts
        is_in_range = pack.fresh is not None or all(map(is_mild, joined.largest(largest)))
        if is_in_range and pack.learns(exponent, asked.looked):
            pack.learn(None, None)
        if not (is_in_range and pack.is_compiled(damping, exponent)):
            return super().propose(groups, largest, asked)
        right, seen, worth = pack.solved(damping, exponent, self._rows, parts[3])
        rights = [pack.rights(None, None, asked.refresh)]
        changed, longer = StageState({}), joined.lengths(asked)
        if asked.longest is not None and joined.is_reach_due(own["steps"]):
            parts[13] = joined.reach(changed)
        self._longer, parts[5] = None, 1.0 if longer is None else longer
        numbers = self._numbers
        numbers[:4] = own["rho_decay"], own["steps"] + 1, own["momentum"], lr
        numbers[7] = 0.0 if asked.longest is None else asked.longest * lr
        _FINISHED(right, pack.change_array, pack.outside, *pack.centred, self._velocity, pack.inputs,
                  self._sums, self._rows, parts, numbers, self._places, seen, worth, exponent < 1,
                  pack.is_whitened, asked.promised)
        _, _, _, _, sure, before, size, _ = numbers.tolist()
        promise = [sure, before, *joined.of_last(parts[11], parts[12], asked)] if asked.promised else None
        return Proposal(joined, [pack.change], None, parts[10], changed, promise=promise, rights=rights,
                        refresh=asked.refresh, size=size)

    def take(self, proposal: Proposal, groups: Groups) -> list[Moves]:
        """As that of RowStep."""
        if proposal.size is None:
            moves = super().take(proposal, groups)
            self._parts[13] = self.joined.state.reach
            return moves
        self._rows[3:5], self._parts[6:8] = self._rows[5:7], self._parts[8:10]
        joined, own = self.joined, groups[self.joined.first.groups[0]]
        joined.renew(proposal.new)
        self._pack.keep_learned()
        self._see_outputs(proposal, groups)
        self._kept[0] = own["momentum"]
        nesterov(self._velocity, self._pack.change_array, self._kept)
        if proposal.refresh:
            without_denormals_([self._pack.velocity])
        return joined.moves(proposal.changes, None, groups)
