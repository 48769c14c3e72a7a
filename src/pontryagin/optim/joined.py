"""Groups of stages that share their settings, side by side: what there is of every output, or of every group,
is one tensor, so that the arithmetic of lengths is done for all stages at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pontryagin.affine import MeanVariance
from pontryagin.optim.addresses import Addresses
from pontryagin.optim.group import Groups, StageGroup
from pontryagin.optim.moves import Moves
from pontryagin.optim.numbers import Numbers, as_type, cat, flat, full, of, tensor, write
from pontryagin.optim.packed import Pack
from pontryagin.optim.promise import Asked
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.state import StageState

Outputs = Numbers
"""Of every output of every group of every stage; of biases, of the first ones."""
Parts = Numbers
"""Of every group of every stage."""
Probed = Mapping[AffineStage, MeanVariance | None]
EARLY, SELDOM = 20, 4
"""What changes slowly is measured in each of the first steps, then in every fourth."""


class Segments:
    """Which outputs belong to which group. lengths: of the groups; padded: with zeros. places: the group of
    each output; inside: 1, 0 where there is padding."""

    def __init__(self, lengths: Sequence[int], padded: Sequence[int], device: torch.device) -> None:
        self._sizes = np.array(padded)
        self._starts, self._count = self._sizes.cumsum() - self._sizes, len(padded)
        self._alike = len(set(padded)) == 1
        self._padded, self._lengths = (torch.tensor(each, dtype=torch.int64, device=device)
                                       for each in (padded, lengths))
        self.lengths = of(self._lengths)
        self._index = torch.repeat_interleave(torch.arange(len(lengths), device=device), self._padded)
        self.places = of(self._index)
        inside = [torch.arange(size, device=device) < length for length, size in zip(
            lengths, padded, strict=True)]
        self.inside = flat(inside)
        self._is_padded = lengths != padded

    def __len__(self) -> int:
        return len(self._index)

    def reduced(self, values: Outputs, how: str = "sum") -> Parts:
        """The mean, sum or max over the outputs of each group; with padding, the max of none below 0."""
        if how == "mean":
            return self.reduced(values) / self.lengths
        if isinstance(values, np.ndarray):
            if self._alike:
                return getattr(values.reshape(self._count, -1), how)(1)
            return {"sum": np.add, "max": np.maximum}[how].reduceat(values, self._starts)
        if values.device.type == "mps":  # which has no segments
            return values.new_zeros(self._count).scatter_reduce(
                0, self._index, values, {"max": "amax"}.get(how, how), include_self=False)
        return torch.segment_reduce(values, how, lengths=self._padded, unsafe=True)

    def spread(self, values: Parts) -> Outputs:
        """To each output that of its group."""
        if isinstance(values, np.ndarray):
            return values.take(self.places)
        return values.index_select(0, self._index)

    def spread_inside(self, values: Parts) -> Outputs:
        """The same; 0 where there is padding."""
        return self.spread(values) * self.inside if self._is_padded else self.spread(values)


class Joined:
    """Groups, those with biases first, and the running numbers of all their stages.

    stages: of all groups. totals: outputs of each. state: the entries `names` of all stages, each in one
    tensor of which the stages' own are views. biases: how many outputs have one.
    """

    def __init__(self, groups: Sequence[StageGroup | Pack], names: Sequence[str]) -> None:
        self.groups = sorted(groups, key=lambda group: not group.has_bias_apart)
        self.first, device = self.groups[0].first, self.groups[0].first.weight.device
        self._shapes = [(group.count, max(group.lengths)) for group in self.groups]
        self.totals = [count * outputs for count, outputs in self._shapes]
        self._biased_groups = sum(group.has_bias_apart for group in self.groups)
        self.biases = sum(self.totals[:self._biased_groups])
        self.segments, self._biased = (
            Segments([length for group in each for length in group.lengths],
                     [max(group.lengths) for group in each for _ in group.lengths], device)
            for each in (self.groups, self.groups[:self._biased_groups]))
        self.biased_parts = sum(count for count, _ in self._shapes[:self._biased_groups])
        self.stages = [one for group in self.groups for one in group.stages]
        self._sizes = [size for group in self.groups for size in group.sizes]
        apart = self.groups[:self._biased_groups]
        self.state, self._with_bias = StageState({}), [one for group in apart for one in group.stages]
        for name in names:
            self._join(name, self.groups)
        if self.biases:
            self._join("bias_velocity", apart)
        self._like = self.stages[0].state.square
        self._is_reach_known = bool((self.state.reach > 0).all())
        self._last: tuple[int | None, int | None] = None, None

    def bind(self, addresses: Addresses | None) -> None:
        """To all packs."""
        for group in self.groups:
            if isinstance(group, Pack):
                group.bind(addresses)

    def _join(self, name: str, groups: Sequence[StageGroup | Pack]) -> None:
        """What there is of outputs is padded as they are."""
        padded = [nn.functional.pad(value, (0, size - value.shape[1])) if value.ndim == 2 else value
                  for value, size in self._known(name, groups)]
        self._place(name, torch.cat([value.reshape(-1) for value in padded]), groups)

    def move(self, name: str, into: np.ndarray) -> None:
        """An entry of all stages lies in this array from now on."""
        into[:] = self.state.entries[name]
        self._place(name, torch.from_numpy(into), self.groups)

    def _place(self, name: str, joint: Tensor, groups: Sequence[StageGroup | Pack]) -> None:
        """The stages' entries are views of it."""
        known = self._known(name, groups)
        shapes = [(len(value), size) if value.ndim == 2 else tuple(value.shape) for value, size in known]
        parts = joint.split([prod(shape) for shape in shapes])
        stages = [one for group in groups for one in group.stages]
        for one, (value, _), shape, part in zip(stages, known, shapes, parts, strict=True):
            part = part.view(shape)
            one.state.entries[name] = part[:, :value.shape[1]] if value.ndim == 2 else part
        self.state.entries[name] = of(joint)

    def _known(self, name: str, groups: Sequence[StageGroup | Pack]) -> list[tuple[Tensor, int]]:
        """The entries of all stages, and to how many outputs they are padded."""
        return [(one.state.entries[name], max(group.lengths)) for group in groups for one in group.stages]

    def by_group(self, values: Outputs | None) -> list[Tensor | None]:
        """(group, output) of each; of biases, None for those that have none."""
        if values is None:
            return [None] * len(self.groups)
        if len(self.groups) == 1:
            return [tensor(values).view(self._shapes[0])]
        totals = self.totals if len(values) > self.biases else self.totals[:self._biased_groups]
        parts = tensor(values).split_with_sizes(totals)
        found = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=False)]
        return found + [None] * (len(self.groups) - len(found))

    def matrices(self, values: Parts) -> list[Tensor]:
        """(group, 1, 1) of each group of stages."""
        return list(tensor(values).view(-1, 1, 1).split([group.count for group in self.groups]))

    def renew(self, new: StageState) -> None:
        """Running numbers, in place."""
        for name, values in new.entries.items():
            write(values, self.state.entries[name])

    def renew_metrics(self) -> None:
        """The moments have changed."""
        for group in self.groups:
            group.renew()

    def of_stages(self, values: Sequence[float]) -> Parts:
        """A number of each stage for all of its groups, in the precision of the squares of gradients."""
        each = [value for value, size in zip(values, self._sizes, strict=True) for _ in range(size)]
        like = self._like
        return of(torch.tensor(each, dtype=like.dtype).to(like.device, non_blocking=True))

    def largest(self, found: Mapping[int, float]) -> list[float]:
        """The largest entry of the gradients of each stage; found: by the id of a parameter."""
        return [max(found[id(one.weight)], found.get(id(one.bias), 0.0)) for one in self.stages]

    def bias_gradients(self, factors: Sequence[float] | None = None) -> Outputs | None:
        """Of all stages with biases, times the factor of each: copies. 0 where there is none."""
        if not self._with_bias:
            return None
        found = [one.bias_gradient().reshape(-1) for one in self._with_bias]
        if factors is not None:
            found = list(torch._foreach_mul(found, list(factors[:len(found)])))
        return of(torch.cat(found).to(self._with_bias[0].state.bias_velocity.dtype))

    def of_all(self, values: Outputs) -> Outputs:
        """Of outputs with a bias apart; 0 of the others."""
        rest = len(self.segments) - len(values)
        return cat([as_type(values, self.state.square), full(self.state.square, rest, 0.0)])

    def of_biases(self, values: Parts) -> Outputs:
        """To each output with a bias that of its group."""
        return self._biased.spread(values[:self.biased_parts])

    def of_all_biases(self, values: Outputs) -> Parts:
        """Whether they hold for all outputs of each group with biases."""
        return self._biased.reduced(as_type(values, self.state.square)) == self._biased.lengths

    def largest_bias(self, values: Outputs) -> Parts:
        """The largest absolute value of each group with biases."""
        return self._biased.reduced(abs(values), "max")

    def is_reach_due(self, steps: int) -> bool:
        """Whether weights are to be measured, after so many steps."""
        return not self._is_reach_known or steps < EARLY or steps % SELDOM == 0

    def limit(self, asked: Asked, lr: float, steps: int, new: StageState) -> Parts | None:
        """Of the norms of steps at this rate, before they are as long as is asked; None where there is none.
        Weights are measured now and then: they change by no more than what is asked here. new: of the
        state."""
        if asked.longest is None:
            return None
        known = self.reach(new) if self.is_reach_due(steps) else self.state.reach
        return known / (asked.longest * lr) if lr else None

    def reach(self, new: StageState) -> Parts:
        """Of all weights, as they are now."""
        new.reach = as_type(of(torch.cat([group.reach() for group in self.groups])), self.state.reach)
        self._is_reach_known = True
        return new.reach

    def last(self, weight: int | None) -> int | None:
        """Which part is the stage of the weight with this id; None where it is not here, or is several."""
        if self._last[0] != weight:
            parts = [n for n, one in enumerate(self.stages) for _ in range(one.stage.groups)]
            found = [n for n, one in enumerate(parts) if id(self.stages[one].weight) == weight]
            self._last = weight, found[0] if len(found) == 1 else None
        return self._last[1]

    def lengths(self, asked: Asked) -> Parts | None:
        """What the steps of all parts are multiplied by; None: 1."""
        place = self.last(asked.last)
        if place is None or asked.unit == 1:
            return None
        found = full(self.state.square, len(self.segments.lengths), 1.0)
        found[place] = asked.unit
        return found

    def of_last(self, own: Parts, along: Parts, asked: Asked) -> list[Numbers]:
        """Of a Promise the last two. own, along: of each part."""
        place = self.last(asked.last)
        return [full(each, 1, 0.0)[0] if place is None else each[place] / asked.unit for each in (own, along)]

    def exponent(self, groups: Groups) -> float:
        """Of the metric; groups: the optimizer's."""
        known = groups[self.first.groups[0]]["exponent"]
        return self.first.exponent if known is None else float(known)

    def follow(self, seen: Probed, power: float, names: Sequence[str]) -> float:
        """The states have been probed: means and second moments grow along, and these numbers as that power
        of the growth. The largest growth or its inverse, 1 where there is none."""
        factors = [group.follow(seen) for group in self.groups]
        if all(factor is None for factor in factors):
            return 1.0
        each = torch.cat([self._like.new_ones(group.count) if factor is None else factor
                          for factor, group in zip(factors, self.groups, strict=True)])
        growth = self.segments.spread(of(each.pow(power)))
        for name in names:
            write(self.state.entries[name] * growth, self.state.entries[name])
        least, most = each.aminmax()
        return max(float(most), 1 / float(least)) if least > 0 else inf

    def promised(self, found: Parts, bias_gradient: Outputs | None, bias: Outputs | None, groups: Groups,
                 units: Parts | None = None) -> Parts:
        """<G, d> of each, times the rates; the gradients are those of the loss divided by units. found: that
        of weights."""
        of_weight, of_bias = (float(groups[number]["lr"]) for number in self.first.groups)
        found = as_type(found, self.state.square) * of_weight
        scale = [group.unit() for group in self.groups]
        if any(one is not None for one in scale):
            found = found * of(torch.cat([
                self._like.new_ones(group.count) if one is None else one.flatten()
                for one, group in zip(scale, self.groups, strict=True)]))
        if bias is not None and bias_gradient is not None:
            found[:self.biased_parts] += of_bias * self._biased.reduced(bias_gradient * bias)
        return found if units is None else found * units

    def moves(self, directions: Sequence[Tensor], bias: Outputs | None, groups: Groups) -> list[Moves]:
        """Of all parameters; groups: the optimizer's."""
        of_weight, of_bias = (groups[number] for number in self.first.groups)
        weights: list[Tensor] = []
        shaped: list[Tensor] = []
        for group, direction in zip(self.groups, directions, strict=True):
            parameters, each = group.moves(direction)
            weights += parameters
            shaped += each
        if bias is None:
            return [Moves.of(weights, shaped, of_weight, place=self._place_of())]
        biases: list[Tensor] = [one.bias for one in self._with_bias if one.bias is not None]
        split = tensor(bias).split_with_sizes([one.numel() for one in biases])
        moved = [part.view(one.shape) for one, part in zip(biases, split, strict=True)]
        if of_bias is of_weight:
            return [Moves.of(weights + biases, shaped + moved, of_weight)]
        return [Moves.of(weights, shaped, of_weight), Moves.of(biases, moved, of_bias)]


    def _place_of(self) -> Callable[[float], None] | None:
        """What moves all parameters at once, where that can be."""
        pack = self.groups[0]
        if not (isinstance(pack, Pack) and len(self.groups) == 1 and (addresses := pack.fresh)):
            return None
        return partial(pack.place, addresses)


def without_denormals_(velocities: Sequence[Tensor]) -> None:
    """Momentum that has died away as 0: numbers below the smallest normal one never come to 0 by themselves,
    and a processor takes a hundred times as long for each."""
    for one in velocities:
        one.masked_fill_(one.abs() < torch.finfo(one.dtype).tiny, 0.0)


@dataclass
class Proposal:
    """A step of groups that has not been taken: directions, by group, those of biases, the norms of the
    former, and what it would change in the state; velocities: in the place of the old ones. rights: what
    C of each group is to see, where it is time; refresh: whether what changes slowly is seen anew. size:
    finite where the directions are, where it is known already."""

    joined: Joined
    changes: list[Tensor]
    bias: Outputs | None
    norm: Parts
    new: StageState
    velocities: Sequence[Tensor] = ()
    promise: Sequence[Numbers] | None = None  # as Promise
    rights: Sequence[Any] = ()  # Rights, or those of a pack's groups
    refresh: bool = False
    size: float | None = None

    def sizes(self) -> list[Numbers]:
        """Single numbers, finite where the directions are."""
        if self.size is not None:
            return [self.size]
        found = [self.norm.sum(), *([] if self.bias is None else [abs(self.bias).sum()])]
        for group, change in zip(self.joined.groups, self.changes, strict=True):
            found += group.extra(change)
        return found

    @property
    def names(self) -> str:
        """Of the stages whose directions, or their norms, are not finite."""
        finite = torch.cat([change.isfinite().all(2).all(1) for change in self.changes])
        finite &= tensor(self.norm).isfinite()
        if self.bias is not None:
            finite[:self.joined.biased_parts] &= tensor(self.joined.of_all_biases(
                of(tensor(self.bias).isfinite())))
        stages = self.joined.stages
        parts = finite.split([one.stage.groups for one in stages])
        return ", ".join(one.stage.name for one, part in zip(stages, parts, strict=True) if not part.all())
