"""The polar step of stages that see many rows: momentum before the argmax, one length for all outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.affine.argmax import centred, largest_entry, output_change, shift
from pontryagin.affine.polar import polar_argmax
from pontryagin.optim.addresses import Addresses
from pontryagin.optim.fading import (
    is_mild,
    unit,
    within,
)
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
from pontryagin.optim.packed import Pack
from pontryagin.optim.polar_lengths import Sizes, momentum_length, polar_scale, renewed
from pontryagin.optim.promise import Asked, products
from pontryagin.optim.state import StageState
from pontryagin.optim.whitening import own_share

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]

MOMENTUM = 0.9
"""Of Nesterov: what averages the batches' noise before all singular values are made alike."""


class PolarStep:
    """Of groups of stages that share their settings, scaled to a mean squared change of an output of 1.

    A polar factor knows nothing of the length of its argument, so its own length is that of the momentum
    beside the gradients that it is made of, where that is less than what momentum leaves of pure noise.
    """

    def __init__(self, groups: Sequence[StageGroup | Pack]) -> None:
        self._groups: Any = sorted(groups, key=lambda group: not group.has_bias_apart)
        self.joined = Joined(self._groups, ("square", "square_weight", "velocity_weight", "size",
                                            "size_weight", "long_size", "peak", "reach"))
        self._is_weighted, self._tiny = False, torch.finfo(self._groups[0].velocity.dtype).tiny

    def bind(self, addresses: Addresses | None) -> None:
        """Of all gradients and controls: packs read and write by them as far as they are fresh."""
        self.joined.bind(addresses)

    def follow(self, seen: Probed, groups: Groups) -> float:
        """The states have been probed, and rho^2 is scaled along. The largest growth."""
        return self.joined.follow(seen, 1 - self.joined.exponent(groups), ("square",))

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
        state = joined.state
        sizes = Sizes(state.size, state.size_weight, state.long_size, state.peak)
        length, sizes = momentum_length(sizes, square, ahead_square, own["steps"] + 1)
        new.entries.update(sizes._asdict())
        damping, exponent = own["damping"], joined.exponent(groups)
        found = [_argmax(group, right, mean_change, damping, exponent)
                 for group, right, mean_change
                 in zip(self._groups, ahead, joined.by_group(bias), strict=True)]
        changes = [change for change, _ in found]
        if (rho_decay := self._rho_decay(own)) is not None:
            seen = as_type(flat([output_change(change, mean_change, group.metric)
                                 for group, (change, mean_change)
                                 in zip(self._groups, found, strict=True)]), state.square)
            new.square, new.square_weight = renewed(state.square, state.square_weight, seen, rho_decay,
                                                    joined.segments)
        shares = joined.by_group(as_type(own_share(sqrt(alone), sqrt(of_ahead), 1.0), of(ahead[0])))
        for change, part in zip(changes, shares, strict=True):
            assert part is not None
            change.mul_(part.unsqueeze(2))
        norm = of(torch.cat([torch.linalg.vector_norm(change, dim=(1, 2)) for change in changes]))
        known = new if "square" in new else state
        factor = as_type(polar_scale(known.square, known.square_weight, length, self._tiny, joined.segments),
                         norm)
        norm = norm * factor
        limit = joined.limit(asked, float(own["lr"]), own["steps"], new)
        if limit is not None:
            factor = factor * within(norm, limit)
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
            each = joined.promised(of(products(ahead, changes)), bias_ahead, bias, groups, units)
            before = [group.velocity for group in self._groups]
            along = each * self._agreement(gradients, before, units, asked)
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

    def _agreement(self, gradients: Sequence[Matrix], velocities: Sequence[Matrix], units: Parts, asked: Asked
                   ) -> Parts:
        """<G, v> / <G, G> of weights, v the momentum of the steps before, where the last stage is here; else
        0. units: about the largest entry of each, by which they are divided."""
        joined = self.joined
        if joined.last(asked.last) is None:
            return full(joined.state.velocity_weight, len(units), 0.0)
        own, before = (torch._foreach_div(list(each), joined.matrices(as_type(units, of(gradients[0]))))
                       for each in (gradients, velocities))
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


def _argmax(group: StageGroup, right: Matrix, bias_gradient: Vector | None, damping: float, exponent: float
            ) -> tuple[Matrix, Vector | None]:
    """(dW, dW s + db) of unit operator norm."""
    if bias_gradient is not None:
        right = centred(right, bias_gradient, group.mean)
    return polar_argmax(right, bias_gradient, group.metric, damping, exponent)
