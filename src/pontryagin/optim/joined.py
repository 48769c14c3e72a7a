"""Groups of stages that share their settings, side by side: what there is of every output, or of every group,
is one tensor, so that the arithmetic of lengths is done for all stages at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pontryagin.affine import MeanVariance
from pontryagin.optim.fading import within
from pontryagin.optim.group import Groups, Rights, StageGroup
from pontryagin.optim.moves import Moves
from pontryagin.optim.packed import Pack
from pontryagin.optim.promise import Asked, products
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.state import StageState

Outputs = Float[Tensor, " outputs"]
"""Of every output of every group of every stage; of biases, of the first ones."""
Parts = Float[Tensor, " parts"]
"""Of every group of every stage."""
Probed = Mapping[AffineStage, MeanVariance | None]
EARLY, SELDOM = 20, 4
"""What changes slowly is measured in each of the first steps, then in every fourth."""


class Segments:
    """Which outputs belong to which group."""

    def __init__(self, lengths: Sequence[int], padded: Sequence[int], device: torch.device) -> None:
        """lengths: of the groups; padded: with zeros."""
        self.lengths, self._padded = (torch.tensor(each, dtype=torch.int64, device=device)
                                      for each in (lengths, padded))
        self.index = torch.repeat_interleave(torch.arange(len(lengths), device=device), self._padded)
        is_padded = lengths != padded
        self._grown = self._padded / self.lengths.double() if is_padded else None
        self._inside = torch.cat([torch.arange(size, device=device) < length for length, size in zip(
            lengths, padded, strict=True)]) if is_padded else None

    def reduced(self, values: Outputs, how: str) -> Parts:
        """The mean, sum or max over the outputs of each group; with padding, the max of none below 0."""
        if how == "mean" and self._grown is not None:
            return self._reduced(values, how).mul_(self._grown)
        return self._reduced(values, how)

    def _reduced(self, values: Outputs, how: str) -> Parts:
        if values.device.type == "mps":  # which has no segments
            found = values.new_zeros(len(self.lengths))
            return found.scatter_reduce(0, self.index, values, {"max": "amax"}.get(how, how),
                                        include_self=False)
        return torch.segment_reduce(values, how, lengths=self._padded, unsafe=True)

    def spread(self, values: Shaped[Tensor, " parts"]) -> Shaped[Tensor, " outputs"]:
        """To each output that of its group."""
        return values.index_select(0, self.index)

    def spread_inside(self, values: Parts) -> Outputs:
        """The same; 0 where there is padding."""
        found = self.spread(values)
        return found if self._inside is None else found.mul_(self._inside)


class Joined:
    """Groups, those with biases first, and the running numbers of all their stages.

    stages: of all groups. state: the entries `names` of all stages, each in one tensor of which the stages'
    own are views. biases: how many outputs have one.
    """

    def __init__(self, groups: Sequence[StageGroup | Pack], names: Sequence[str]) -> None:
        self.groups = sorted(groups, key=lambda group: not group.has_bias_apart)
        self.first, device = self.groups[0].first, self.groups[0].first.weight.device
        self._shapes = [(group.count, max(group.lengths)) for group in self.groups]
        self._totals = [count * outputs for count, outputs in self._shapes]
        self._biased_groups = sum(group.has_bias_apart for group in self.groups)
        self.biases = sum(self._totals[:self._biased_groups])
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
        self._is_reach_known = bool((self.state.reach > 0).all())
        self._last: tuple[int | None, int | None] = None, None

    def _join(self, name: str, groups: Sequence[StageGroup | Pack]) -> None:
        """What there is of outputs is padded as they are."""
        stages = [(one, max(group.lengths)) for group in groups for one in group.stages]
        known = [one.state.entries[name] for one, _ in stages]
        padded = [nn.functional.pad(value, (0, size - value.shape[1])) if value.ndim == 2 else value
                  for value, (_, size) in zip(known, stages, strict=True)]
        joint = torch.cat([value.reshape(-1) for value in padded])
        parts = joint.split([value.numel() for value in padded])
        for (one, _), value, whole, part in zip(stages, known, padded, parts, strict=True):
            part = part.view(whole.shape)
            one.state.entries[name] = part[:, :value.shape[1]] if value.ndim == 2 else part
        self.state.entries[name] = joint

    def by_group(self, values: Outputs | None) -> list[Tensor | None]:
        """(group, output) of each; of biases, None for those that have none."""
        if values is None:
            return [None] * len(self.groups)
        totals = self._totals if values.numel() > self.biases else self._totals[:self._biased_groups]
        found = [part.view(shape)
                 for part, shape in zip(values.split_with_sizes(totals), self._shapes, strict=False)]
        return found + [None] * (len(self.groups) - len(found))

    def renew(self, new: StageState) -> None:
        """Running numbers, in place."""
        torch._foreach_copy_([self.state.entries[name] for name in new.entries], list(new.entries.values()))

    def renew_metrics(self) -> None:
        """The moments have changed."""
        for group in self.groups:
            group.renew()

    def of_stages(self, values: Sequence[float]) -> Parts:
        """A number of each stage for all of its groups, in the precision of the squares of gradients."""
        each = [value for value, size in zip(values, self._sizes, strict=True) for _ in range(size)]
        square = self.state.square
        return torch.tensor(each, dtype=square.dtype).to(square.device, non_blocking=True)

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
        return torch.cat(found).to(self.state.bias_velocity.dtype)

    def of_biases(self, values: Parts) -> Outputs:
        """To each output with a bias that of its group."""
        return self._biased.spread(values[:self.biased_parts])

    def sum_of_biases(self, values: Outputs) -> Parts:
        """Over the outputs of each group with biases."""
        return self._biased.reduced(values, "sum").to(self.state.square.dtype)

    def of_all_biases(self, values: Shaped[Tensor, " outputs"]) -> Shaped[Tensor, " parts"]:
        """Whether they hold for all outputs of each group with biases."""
        return self._biased.reduced(values.float(), "sum") == self._biased.lengths

    def largest_bias(self, values: Outputs) -> Parts:
        """The largest absolute value of each group with biases."""
        return self._biased.reduced(values.abs(), "max")

    def within_reach(self, norm: Parts, lr: float, steps: int, new: StageState) -> Parts:
        """What steps of this norm, times lr, are multiplied by. Weights are measured now and then: they
        change by no more than what is asked here. new: of the state."""
        if not self._is_reach_known or steps < EARLY or steps % SELDOM == 0:
            new.reach = torch.cat([group.reach() for group in self.groups]).to(self.state.reach.dtype)
            self._is_reach_known = True
        known = new if "reach" in new else self.state
        return within(norm, known.reach.to(norm.dtype) / lr) if lr else torch.ones_like(norm)

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
        found = self.state.square.new_ones(len(self.segments.lengths))
        found[place] = asked.unit
        return found

    def of_last(self, own: Parts, along: Parts, asked: Asked) -> list[Tensor]:
        """Of a Promise the last two. own, along: of each part."""
        place = self.last(asked.last)
        return [each.new_zeros(()) if place is None else each[place] / asked.unit for each in (own, along)]

    def exponent(self, groups: Groups) -> float:
        """Of the metric; groups: the optimizer's."""
        known = groups[self.first.groups[0]]["exponent"]
        return self.first.exponent if known is None else float(known)

    def follow(self, seen: Probed, power: float, names: Sequence[str]) -> None:
        """The states have been probed: means and second moments grow along, and these numbers as that power
        of the growth."""
        factors = [group.follow(seen) for group in self.groups]
        if any(factor is not None for factor in factors):
            each = [self.state.square.new_ones(group.count) if factor is None else factor
                    for factor, group in zip(factors, self.groups, strict=True)]
            growth = self.segments.spread(torch.cat(each).pow(power))
            for name in names:
                self.state.entries[name].mul_(growth)

    def promised(self, gradients: Sequence[Tensor], directions: Sequence[Tensor],
                 bias_gradient: Outputs | None, bias: Outputs | None, groups: Groups,
                 units: Parts | None = None) -> Parts:
        """<G, d> of each, times the rates; the gradients are those of the loss divided by units."""
        of_weight, of_bias = (float(groups[number]["lr"]) for number in self.first.groups)
        found = products(gradients, directions).to(self.state.square.dtype).mul_(of_weight)
        scale = [group.unit() for group in self.groups]
        if any(one is not None for one in scale):
            found *= torch.cat([found.new_ones(group.count) if one is None else one.flatten()
                                for one, group in zip(scale, self.groups, strict=True)])
        if bias is not None and bias_gradient is not None:
            found[:len(self._biased.lengths)] += of_bias * self._biased.reduced(bias_gradient * bias, "sum")
        return found if units is None else found.mul_(units)

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
            return [Moves.of(weights, shaped, of_weight)]
        biases: list[Tensor] = [one.bias for one in self._with_bias if one.bias is not None]
        split = bias.split_with_sizes([one.numel() for one in biases])
        moved = [part.view(one.shape) for one, part in zip(biases, split, strict=True)]
        if of_bias is of_weight:
            return [Moves.of(weights + biases, shaped + moved, of_weight)]
        return [Moves.of(weights, shaped, of_weight), Moves.of(biases, moved, of_bias)]


@dataclass
class Proposal:
    """A step of groups that has not been taken: directions, by group, those of biases, the norms of the
    former, and what it would change in the state; velocities: in the place of the old ones. rights: what
    C of each group is to see, where it is time."""

    joined: Joined
    changes: list[Tensor]
    bias: Outputs | None
    norm: Parts
    new: StageState
    velocities: Sequence[Tensor] = ()
    promise: Float[Tensor, "4"] | None = None  # as Promise
    rights: Sequence[Rights | None] = ()

    def size(self) -> Tensor:
        """Finite where the directions are."""
        each = [self.norm, *([] if self.bias is None else [self.bias.abs()])]
        for group, change in zip(self.joined.groups, self.changes, strict=True):
            each += [one.view(-1) for one in group.extra(change)]
        return (each[0] if len(each) == 1 else torch.cat(each)).sum()

    @property
    def names(self) -> str:
        """Of the stages whose directions are not finite."""
        finite = torch.cat([change.isfinite().all(2).all(1) for change in self.changes])
        for values in [] if self.bias is None else [self.bias.isfinite()]:
            finite[:self.joined.biased_parts] &= self.joined.of_all_biases(values)
        stages = self.joined.stages
        parts = finite.split([one.stage.groups for one in stages])
        return ", ".join(one.stage.name for one, part in zip(stages, parts, strict=True) if not part.all())
