"""The polar step of one pack on the CPU, where it is compiled: its products, and three calls for the rest."""

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pontryagin.affine.polar import polar_factor
from pontryagin.optim.addresses import Addresses
from pontryagin.optim.compiled import Compiled, averaged, moved, promised, row_squares, scaled
from pontryagin.optim.fading import within
from pontryagin.optim.group import Groups
from pontryagin.optim.joined import Proposal, without_denormals_
from pontryagin.optim.moves import Moves, pull
from pontryagin.optim.numbers import Numbers, lerp, of, quiet, reduced, spread, sqrt, tensor, write
from pontryagin.optim.packed import Pack
from pontryagin.optim.polar_lengths import Sizes, momentum_length, polar_scale, renewed
from pontryagin.optim.polar_step import MOMENTUM, PolarStep
from pontryagin.optim.promise import PARTS as PROMISES
from pontryagin.optim.promise import Asked
from pontryagin.optim.row_lengths import ARRAYS, Layout
from pontryagin.optim.state import StageState, States
from pontryagin.optim.whitening import own_share

ROWS = "alone", "whole", "norms", "moved", "inside", "square", "new_square"
"""What `polar_finished` has of every output in one array: |(G, g)|^2 and that of the momentum, |dW|^2, the
mean squared change of this step, 1 where there is no padding, its running mean, and what that will be."""
PARTS = ("lengths", "limit", "longer", "square_weight", "size", "size_weight", "long_size", "peak",
         "new_square_weight", "new_size", "new_size_weight", "new_long_size", "new_peak", "norm", "own",
         "past", "unit")
"""And of every part: its outputs, the limit of its norm, what it is multiplied by, the running means and what
they will be, |d|, lr <momentum, d>, what `promised` has for the past, what momentum is divided by."""
NUMBERS = "rho_decay", "steps", "lr", "tiny", "size"
"""Of all: the decay of rho, less than 0 where it stays as it is; steps with this one; the smallest normal
number; and one that is finite where directions are."""


def polar_finished(change: np.ndarray, ahead: np.ndarray, rows: np.ndarray, parts: np.ndarray,
                   numbers: np.ndarray, places: np.ndarray, inputs: int, is_promised: bool) -> None:
    """What is left to do of a polar step of one pack when its argmax is known: the change is made as long as
    it is to be, and what is known of it written beside what was given."""
    groups, outputs, columns = change.shape
    segments, lr = Layout(places, rows[4], parts[0]), numbers[2]
    length, new = momentum_length(Sizes(parts[4], parts[5], parts[6], parts[7]), reduced(segments, rows[0]),
                                  reduced(segments, rows[1]), int(numbers[1]))
    write(new.size, parts[9])
    write(new.size_weight, parts[10])
    write(new.long_size, parts[11])
    write(new.peak, parts[12])
    square, weight = rows[5], parts[3]
    if numbers[0] >= 0:
        square, weight = renewed(rows[5], parts[3], rows[3], numbers[0], segments)
    write(square, rows[6])
    write(weight, parts[8])
    share = own_share(sqrt(rows[0]), sqrt(rows[1]), 1.0)
    row_squares(change, inputs, rows[2].reshape(groups, outputs))
    factor = polar_scale(rows[6], parts[8], length, numbers[3], segments)
    norm = factor * sqrt(reduced(segments, share * share * rows[2]))
    factor = factor * within(norm, parts[1]) * parts[2]
    narrow = (share * spread(segments, factor)).astype(change.dtype).reshape(groups, outputs)
    if is_promised:
        promised(change, narrow, ahead, ahead[:0], ahead, parts[14:16])
        write(parts[14] * lr * parts[16], parts[14])
    else:
        scaled(change, narrow)
    write(norm, parts[13])
    beside = 0.0
    for k in range(groups):
        for i in range(outputs):
            for j in range(inputs, columns):
                beside += change[k, i, j]
    numbers[4] = norm.sum() + beside


_FINISHED = Compiled(polar_finished, ARRAYS | {
    "promised": promised, "scaled": scaled, "row_squares": row_squares} | {
    function.__name__: Compiled(function, ARRAYS) for function in (momentum_length, renewed, polar_scale)})


class PolarPackStep(PolarStep):
    """As a PolarStep."""

    def __init__(self, pack: Pack) -> None:
        super().__init__([pack])
        self._pack, segments = pack, self.joined.segments
        self._of_rows, self._of_parts = (np.zeros((len(names), size)) for names, size in (
            (ROWS, len(segments)), (PARTS, len(segments.lengths))))
        self._numbers, self._places = np.zeros(len(NUMBERS)), segments.places
        self._of_rows[4], self._of_parts[0], self._numbers[3] = segments.inside, segments.lengths, self._tiny
        self.joined.move("square", self._of_rows[5])
        for name in ("square_weight", "size", "size_weight", "long_size", "peak"):
            self.joined.move(name, self._of_parts[PARTS.index(name)])
        self._ahead = torch.zeros_like(pack.velocity)
        self._proposed: Proposal | None = None  # by propose_again
        self._change, self._velocity, self._momentum = of(pack.change), of(pack.velocity), of(self._ahead)

    def propose(self, groups: Groups, largest: Mapping[int, float], asked: Asked) -> Proposal:
        """As that of PolarStep."""
        joined, pack, own = self.joined, self._pack, groups[self.joined.first.groups[0]]
        rows, parts, numbers, lr = self._of_rows, self._of_parts, self._numbers, float(own["lr"])
        gradient, changed = pack.gradient(), StageState({})
        changed.velocity_weight = lerp(joined.state.velocity_weight, 1.0, 1 - MOMENTUM)
        weights = MOMENTUM / of(tensor(changed.velocity_weight))
        averaged(of(gradient), self._velocity, self._momentum, MOMENTUM, weights, rows[:2], parts[16])
        root: Any = pack.known_metric(own["damping"], joined.exponent(groups) / 2)
        root.transposed(self._ahead, pack.change)
        polar = polar_factor(pack.change)
        root.solve(polar, pack.change)
        if (rho_decay := self._rho_decay(own)) is not None:
            rows[3] = pack.squared_change(polar).reshape(-1)
        longer, limit = joined.lengths(asked), joined.limit(asked, lr, own["steps"], changed)
        parts[1], parts[2] = inf if limit is None else limit, 1.0 if longer is None else longer
        numbers[:3] = -1.0 if rho_decay is None else rho_decay, own["steps"] + 1, lr
        _FINISHED(self._change, self._momentum, rows, parts, numbers, self._places, pack.inputs,
                  asked.promised)
        promise: list[Numbers] | None = None
        if asked.promised:
            each, along = parts[14], np.zeros_like(parts[14])
            if (place := joined.last(asked.last)) is not None:
                along[place] = each[place] * self._agreement_of(place, gradient)
            promise = [each.sum(), 0.0, *joined.of_last(each, along, asked)]
        return Proposal(joined, [pack.change], None, parts[13], changed, promise=promise,
                        refresh=asked.refresh, size=float(numbers[4]))

    def take(self, proposal: Proposal, groups: Groups) -> list[Moves]:
        """As that of PolarStep."""
        self._take(proposal)
        return self.joined.moves(proposal.changes, proposal.bias, groups)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that it moves."""
        return self._pack.parameters

    def is_ready(self, _: Groups, __: States, addresses: Addresses) -> bool:
        """Of ordinary.Repeated, as the next ones."""
        return self._pack.fresh is addresses

    def propose_again(self, groups: Groups, longest: float, last: int | None, unit: float, is_promised: bool
                      ) -> tuple[float, float, float, float, float]:
        """What `propose` does."""
        with quiet():
            found = self.propose(groups, {}, Asked(longest, is_promised, last, unit))
            sure, before, of_last, along = map(float, found.promise or (0.0,) * PROMISES)
        self._proposed = found
        return sure, before, of_last, along, float(self._numbers[4])

    def take_again(self, groups: Groups, length: float) -> None:
        """What `take` does, and the move."""
        found, addresses = self._proposed, self._pack.fresh
        assert found is not None
        assert addresses is not None
        with quiet():
            self._take(found)
        own = groups[self.joined.first.groups[0]]
        lr = float(own["lr"])
        pull(self._pack.parameters, lr * float(own["weight_decay"]) * length)
        self._pack.add(addresses, -lr * length)

    def _take(self, proposal: Proposal) -> None:
        """All but the moves."""
        moved(self._velocity, of(self._pack.last_gradient), MOMENTUM)
        if proposal.refresh:
            without_denormals_([self._pack.velocity])
        self._of_rows[5], self._of_parts[3:8] = self._of_rows[6], self._of_parts[8:13]
        self.joined.renew(proposal.new)

    def _agreement_of(self, place: int, gradient: Tensor) -> float:
        """<G, v> / <G, G> of the weights of one part, as `_agreement` of all."""
        unit, tiny = self._of_parts[16, place], torch.finfo(gradient.dtype).tiny
        own, before = (of(each[place, :, :self._pack.inputs]).astype(float) / unit
                       for each in (gradient, self._pack.velocity))
        known = max(self.joined.state.velocity_weight[place], tiny)
        return float(np.vdot(own, before) / known / max(np.vdot(own, own), tiny))
