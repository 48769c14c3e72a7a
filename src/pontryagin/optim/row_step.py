"""The step by rows: rho per output, from what the argmax changes; momentum after the solve."""

from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor

from pontryagin.optim.fading import floored, is_faded, is_mild, long_mean, new_peak, unit, unrisen
from pontryagin.optim.group import Groups, StageGroup
from pontryagin.optim.joined import (
    Joined,
    Outputs,
    Parts,
    Probed,
    Proposal,
    Segments,
    without_denormals_,
)
from pontryagin.optim.moves import Moves
from pontryagin.optim.numbers import Numbers, as_type, clip, flat, full, lerp, of, sqrt, tensor, where
from pontryagin.optim.packed import Pack
from pontryagin.optim.promise import OWN, Asked, certain
from pontryagin.optim.state import StageState

_LARGEST = 1e37
"""Of a scale, a float32 later: where all gradients have been tiny, the next may be 0 and is to stay it."""
_SILENT, _SINGLE = 0.01, 1e-6
"""Of the mean over outputs, which keeps rho of silent ones from vanishing; and of a single output."""


class RowStep:
    """Of groups of stages that share their settings."""

    def __init__(self, groups: Sequence[StageGroup | Pack]) -> None:
        self.joined = Joined(groups, ("square", "long_square", "square_weight", "peak", "reach"))
        single = as_type(self.joined.segments.lengths == 1, self.joined.state.square)
        self._silent = lerp(_SILENT, _SINGLE, single)
        self._certain = self.joined.of_stages([certain(one.state.samples.item(), one.stage.inputs,
                                                     one.stage.outputs) for one in self.joined.stages])

    def follow(self, seen: Probed, groups: Groups) -> None:
        """The states have been probed. rho^2 is scaled along: as dW^2 A_c for a G that grows as its inputs
        do."""
        self.joined.follow(seen, 2 * (1 - self.joined.exponent(groups)), ("square", "long_square"))

    def propose(self, groups: Groups, largest: Mapping[int, float], asked: Asked) -> Proposal:
        """The step of all stages; nothing has been changed. largest: by the id of a parameter, the largest
        entry of its gradient."""
        joined, own = self.joined, groups[self.joined.first.groups[0]]
        sizes, units = joined.largest(largest), None
        if not all(map(is_mild, sizes)):
            sizes = [unit(size) for size in sizes]
            units = joined.of_stages(sizes)
        exponent = joined.exponent(groups)
        factors = None if units is None else [1 / size for size in sizes]
        bias_gradient, scaled = joined.bias_gradients(factors), iter(factors or [])
        gradients, rights, answers = [], [], []
        for group, mean_change in zip(joined.groups, joined.by_group(bias_gradient), strict=True):
            gradient = group.gradient(None if factors is None else [next(scaled) for _ in group.stages])
            gradients.append(gradient)
            rights.append(group.rights(gradient, mean_change, asked.refresh))
            answers.append(group.answer(gradient, mean_change, own["damping"], exponent))
        changes = [one.change for one in answers]
        bias, moved = None, flat([one.mean_change for one in answers])
        square = as_type(flat([one.square for one in answers]), joined.state.square)
        if moved is not None:
            square = square + joined.of_all(moved * moved)
        scale, new = outputs_scale(joined.state, square, units, own["rho_decay"], own["steps"] + 1,
                                   joined.segments, self._silent)
        if any(one.share is not None for one in answers):
            scale = scale * flat([full(scale, size, 1.0) if one.share is None else one.share
                                  for one, size in zip(answers, joined.totals, strict=True)])
        length = flat([one.norm for one in answers]) * scale
        norm = sqrt(joined.segments.reduced(length * length))
        if asked.longest is not None:
            reached = joined.within_reach(norm, asked.longest * float(own["lr"]), own["steps"], new)
            scale = scale * joined.segments.spread(reached)
        if (lengths := joined.lengths(asked)) is not None:
            scale = scale * joined.segments.spread(lengths)
        narrow = as_type(scale, of(changes[0]))
        for change, part in zip(changes, joined.by_group(narrow), strict=True):
            assert part is not None
            change.mul_(part.unsqueeze(2))
        if moved is not None:
            bias = (moved - flat([one.shift for one in answers])) * narrow[:joined.biases]
        promise = (self._promise(gradients, changes, bias_gradient, bias, groups, units, asked)
                   if asked.promised else None)
        return Proposal(joined, changes, bias, norm, new, promise=promise, rights=rights,
                        refresh=asked.refresh)

    def _promise(self, gradients: Sequence[Tensor], changes: Sequence[Tensor], bias_gradient: Outputs | None,
                 bias: Outputs | None, groups: Groups, units: Parts | None, asked: Asked) -> list[Numbers]:
        """A first step has no past."""
        joined, own = self.joined, groups[self.joined.first.groups[0]]
        momentum, steps = own["momentum"], own["steps"]
        new = joined.promised(gradients, changes, bias_gradient, bias, groups, units)
        past = joined.promised(gradients, [group.velocity for group in joined.groups], bias_gradient,
                               None if bias is None else joined.state.bias_velocity, groups, units)
        known = as_type(joined.state.square_weight > 0, joined.state.square)
        share = lerp(1 - momentum**2, OWN, known)
        return [(new * share * self._certain).sum(), past.sum() * (1 - OWN),
                *joined.of_last(new, past / max(1 - momentum**steps, 1e-3), asked)]

    def take(self, proposal: Proposal, groups: Groups) -> list[Moves]:
        """The changes of all parameters; momentum, rho and, where it is time, C are updated."""
        joined = self.joined
        joined.renew(proposal.new)
        own = groups[joined.first.groups[0]]
        for group, right in zip(joined.groups, proposal.rights, strict=True):
            if right is not None:
                group.see_outputs(right, own["damping"], joined.exponent(groups))
        velocities, steps = [group.velocity for group in joined.groups], list(proposal.changes)
        if proposal.bias is not None:
            velocities.append(tensor(joined.state.bias_velocity))
            steps.append(tensor(proposal.bias))
        nesterov_(velocities, steps, own["momentum"])
        if proposal.refresh:
            without_denormals_(velocities)
        return joined.moves(proposal.changes, proposal.bias, groups)


def outputs_scale(state: StageState, square: Outputs, units: Parts | None, rho_decay: float, steps: int,
                  segments: Segments, silent: Parts) -> tuple[Outputs, StageState]:
    """(1 / rho_i, the new running means): rho_i = sqrt of the running mean of the squared changes of output
    i.

    square: of the changes that the gradient divided by `units` (None: 1) causes; the scale is for these
    changes. So every output moves by about 1 (root mean square over samples) in a step before the factor lr,
    whatever the gradient's scale; by less where gradients fade (fading.py). Where no gradient has ever come,
    0. silent: what part of the mean over outputs keeps rho of silent ones from vanishing.
    """
    if units is not None:
        units = segments.spread(units)
        square = square * units * units
    new = StageState({})
    new.square = lerp(state.square, square, 1 - rho_decay)
    new.square_weight = lerp(state.square_weight, 1.0, 1 - rho_decay)
    new.long_square = long_mean(state.long_square, square, steps)
    long = segments.reduced(new.long_square, "mean")
    new.peak = new_peak(state.peak, long, steps)
    mean_square = new.square / segments.spread(new.square_weight)
    mean_square = unrisen(mean_square, square, segments.spread(is_faded(long, new.peak)))
    mean_square = floored(mean_square, new.long_square, segments.spread_inside(new.peak))
    known = mean_square + segments.spread(segments.reduced(mean_square, "mean") * silent)
    scale = where(known <= 0, inf, known)**-0.5
    return clip(scale if units is None else scale * units, None, _LARGEST), new


def nesterov_(velocities: list[Tensor], steps: list[Tensor], momentum: float) -> None:
    """v <- m v + (1 - m) d, and d <- m v + (1 - m) d with the new v."""
    torch._foreach_lerp_(velocities, steps, 1 - momentum)
    torch._foreach_lerp_(steps, velocities, momentum)
