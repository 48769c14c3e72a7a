"""The polar step of stages that see many rows: momentum before the argmax, one length for all outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.argmax import centred, largest_entry, output_change, shift
from pontryagin.affine.polar import polar_argmax
from pontryagin.optim.fading import NOISE_LEVEL_OF_MOMENTUM, floored, is_mild, long_mean, new_peak, unit
from pontryagin.optim.group import Groups, StageGroup
from pontryagin.optim.joined import (
    EARLY,
    SELDOM,
    Joined,
    Outputs,
    Parts,
    Probed,
    Proposal,
    without_denormals_,
)
from pontryagin.optim.moves import Moves
from pontryagin.optim.numbers import as_type, clip, flat, full, lerp, maximum, of, sqrt, where
from pontryagin.optim.promise import Asked, products
from pontryagin.optim.state import StageState
from pontryagin.optim.whitening import own_share

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]

MOMENTUM = 0.9
"""Of Nesterov: what averages the batches' noise before all singular values are made alike."""
_NOISE = 0.25
"""What Nesterov momentum of 0.9 leaves of gradients that are noise alone, root mean square: 0.27."""
_SIZE_DECAY = 0.98
"""Of the mean squared gradient that momentum is compared with: longer than momentum's own memory of ten."""


class PolarStep:
    """Of groups of stages that share their settings, scaled to a mean squared change of an output of 1.

    A polar factor knows nothing of the length of its argument, so its own length is that of the momentum
    beside the gradients that it is made of, where that is less than what momentum leaves of pure noise.
    """

    def __init__(self, groups: Sequence[StageGroup]) -> None:
        self._groups = sorted(groups, key=lambda group: not group.has_bias_apart)
        self.joined = Joined(self._groups, ("square", "square_weight", "velocity_weight", "size",
                                            "size_weight", "long_size", "peak", "reach"))
        self._is_weighted = False

    def follow(self, seen: Probed, groups: Groups) -> None:
        """The states have been probed, and rho^2 is scaled along."""
        self.joined.follow(seen, 1 - self.joined.exponent(groups), ("square",))

    def propose(self, groups: Groups, largest: Mapping[int, float], asked: Asked) -> Proposal:
        """As that of RowStep. Nesterov momentum, bias-corrected, before the argmax."""
        joined, own, new = self.joined, groups[self.joined.first.groups[0]], StageState({})
        gradients, bias = [group.gradient() for group in self._groups], joined.bias_gradients()
        new.velocity_weight = lerp(joined.state.velocity_weight, 1.0, 1 - MOMENTUM)
        velocities = torch._foreach_lerp([group.velocity for group in self._groups], gradients, 1 - MOMENTUM)
        weight = MOMENTUM / new.velocity_weight
        ahead = [torch.add(velocity * part, gradient, alpha=1 - MOMENTUM) for velocity, part, gradient
                 in zip(velocities, joined.matrices(weight), gradients, strict=True)]
        size = of(torch.cat([largest_entry(one) for one in ahead]))
        alone = self._rows(gradients, bias, largest)
        square = joined.segments.reduced(alone)
        if bias is not None:
            new.bias_velocity = lerp(joined.state.bias_velocity, bias, 1 - MOMENTUM)
            bias = new.bias_velocity * joined.of_biases(weight) + (1 - MOMENTUM) * bias
            size[:joined.biased_parts] = maximum(size[:joined.biased_parts], joined.largest_bias(bias))
        units = where(size > 0, size, as_type(full(size, 1, 1.0), size))  # whose squares are to be finite
        ahead = list(torch._foreach_div(ahead, joined.matrices(units)))
        bias = None if bias is None else bias / joined.of_biases(units)
        bias_ahead, promise = bias, None
        wide = as_type(units, square)
        of_ahead = self._squares(ahead, bias) * joined.segments.spread(wide * wide)
        ahead_square = joined.segments.reduced(of_ahead)
        length = self._length(new, square, ahead_square, own["steps"] + 1)
        damping, exponent = own["damping"], joined.exponent(groups)
        found = [_argmax(group, right, mean_change, damping, exponent)
                 for group, right, mean_change
                 in zip(self._groups, ahead, joined.by_group(bias), strict=True)]
        changes = [change for change, _ in found]
        if (rho_decay := self._rho_decay(own)) is not None:
            self._renew(new, flat([output_change(change, mean_change, group.metric)
                                   for group, (change, mean_change)
                                   in zip(self._groups, found, strict=True)]), rho_decay)
        shares = joined.by_group(as_type(own_share(sqrt(alone), sqrt(of_ahead), 1.0), of(ahead[0])))
        for change, part in zip(changes, shares, strict=True):
            assert part is not None
            change.mul_(part.unsqueeze(2))
        norm = of(torch.cat([torch.linalg.vector_norm(change, dim=(1, 2)) for change in changes]))
        factor = as_type(self._factor(new, length), norm)
        norm = norm * factor
        if asked.longest is not None:
            factor = factor * joined.within_reach(norm, asked.longest * float(own["lr"]), own["steps"], new)
        if (lengths := joined.lengths(asked)) is not None:
            factor = factor * lengths
        torch._foreach_mul_(changes, joined.matrices(factor))
        if bias is not None:
            moved = flat([mean_change * part for (_, mean_change), part in zip(found, shares, strict=True)
                          if mean_change is not None and part is not None])
            bias = moved * as_type(joined.of_biases(factor), moved) - flat([
                shift(change, group.mean) for group, (change, mean_change)
                in zip(self._groups, found, strict=True) if mean_change is not None])
        if asked.promised:
            each = joined.promised(ahead, changes, bias_ahead, bias, groups, units)
            along = each * self._agreement(gradients, units, asked)
            promise = [each.sum(), full(each, 1, 0.0)[0], *joined.of_last(each, along, asked)]
        return Proposal(joined, changes, bias, norm, new, velocities, promise, refresh=asked.refresh)

    def take(self, proposal: Proposal, groups: Groups) -> list[Moves]:
        """The changes of all parameters; momentum and rho are updated."""
        if proposal.refresh:
            without_denormals_(proposal.velocities)
        for group, velocity in zip(self._groups, proposal.velocities, strict=True):
            group.replace_velocity(velocity)
        self.joined.renew(proposal.new)
        return self.joined.moves(proposal.changes, proposal.bias, groups)

    def _agreement(self, gradients: Sequence[Matrix], units: Parts, asked: Asked) -> Parts:
        """<G, v> / <G, G>, v the momentum of the steps before, where the last stage is here; else 0. units:
        about the largest entry of each, by which they are divided."""
        joined = self.joined
        if joined.last(asked.last) is None:
            return full(joined.state.velocity_weight, len(units), 0.0)
        own, before = (torch._foreach_div(each, joined.matrices(units)) for each in (
            list(gradients), [group.velocity for group in self._groups]))
        tiny = torch.finfo(gradients[0].dtype).tiny
        known = clip(joined.state.velocity_weight, tiny, None)
        return of(products(own, before)) / known / clip(of(products(own, own)), tiny, None)

    def _rows(self, gradients: Sequence[Matrix], bias: Outputs | None, largest: Mapping[int, float]
              ) -> Outputs:
        """|(G, g)|^2 of each output, whatever the size of G."""
        sizes = self.joined.largest(largest)
        if all(map(is_mild, sizes)):
            return self._squares(gradients, bias)
        units = self.joined.of_stages([unit(size) for size in sizes])
        bias = None if bias is None else bias / as_type(self.joined.of_biases(units), bias)
        divided = torch._foreach_div(list(gradients), self.joined.matrices(as_type(units, of(gradients[0]))))
        return self._squares(divided, bias) * self.joined.segments.spread(units * units)

    def _squares(self, matrices: Sequence[Matrix], bias: Outputs | None) -> Outputs:
        """The sum of squares of each row."""
        found = as_type(flat([torch.linalg.vector_norm(one, dim=2) for one in matrices]),
                        self.joined.state.square)
        return found * found + (0.0 if bias is None else self.joined.of_all(bias * bias))

    def _length(self, new: StageState, square: Parts, ahead: Parts, steps: int) -> Parts:
        """The size of the momentum over what momentum leaves of noise of the gradients' size, at most 1; the
        running means of their squared sizes are new. square, ahead: |G|^2 and that of the momentum."""
        state = self.joined.state
        new.size = lerp(state.size, square, 1 - _SIZE_DECAY)
        new.size_weight = lerp(state.size_weight, 1.0, 1 - _SIZE_DECAY)
        new.long_size = long_mean(state.long_size, square, steps)
        new.peak = new_peak(state.peak, new.long_size, steps)
        known = sqrt(floored(new.size / new.size_weight, new.long_size, new.peak, NOISE_LEVEL_OF_MOMENTUM))
        return clip(where(known > 0, sqrt(ahead) / (_NOISE * known), 0.0), None, 1)

    def _rho_decay(self, own: Mapping[str, Any]) -> float | None:
        """Of rho in this step; None where it stays as it is: it costs a product with A_c and changes slowly,
        so that after the first steps it is renewed in every fourth with the memory of four. (Of a step by
        rows it is renewed in every step: an output can be silent for long, and a rho that has vanished must
        not meet its next gradient.)"""
        if own["steps"] < EARLY:
            return own["rho_decay"]
        if not self._is_weighted:  # once all have had a gradient they stay so
            self._is_weighted = bool(self.joined.state.square_weight.all())
        renewed = own["steps"] % SELDOM == 0 or not self._is_weighted
        return own["rho_decay"] ** SELDOM if renewed else None

    def _renew(self, new: StageState, square: Outputs, rho_decay: float) -> None:
        """The running mean of the squared changes of the outputs that a polar step causes; a zero gradient
        causes none to count."""
        state, segments = self.joined.state, self.joined.segments
        square = as_type(square, state.square)
        weight = as_type(segments.reduced(square) > 0, square) * (1 - rho_decay)
        new.square = lerp(state.square, square, segments.spread(weight))
        new.square_weight = lerp(state.square_weight, 1.0, weight)

    def _factor(self, new: StageState, length: Parts) -> Parts:
        """1 / rho, times the length."""
        known = new if "square" in new else self.joined.state
        tiny = torch.finfo(self._groups[0].velocity.dtype).tiny
        square = self.joined.segments.reduced(known.square, "mean") / clip(known.square_weight, tiny, None)
        return where(square > 0, square**-0.5 * length, 0.0)


def _argmax(group: StageGroup, right: Matrix, bias_gradient: Vector | None, damping: float, exponent: float
            ) -> tuple[Matrix, Vector | None]:
    """(dW, dW s + db) of unit operator norm."""
    if bias_gradient is not None:
        right = centred(right, bias_gradient, group.mean)
    return polar_argmax(right, bias_gradient, group.metric, damping, exponent)
