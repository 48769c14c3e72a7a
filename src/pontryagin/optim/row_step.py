"""The step by rows: rho per output, from what the argmax changes; momentum after the solve."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pontryagin.optim.addresses import Addresses
from pontryagin.optim.fading import is_mild, unit
from pontryagin.optim.group import Groups, StageGroup
from pontryagin.optim.joined import Joined, Outputs, Parts, Probed, Proposal, without_denormals_
from pontryagin.optim.moves import Moves
from pontryagin.optim.numbers import Numbers, as_type, flat, full, lerp, of, tensor
from pontryagin.optim.packed import Pack
from pontryagin.optim.passes import nesterov_, promise_, scale_
from pontryagin.optim.promise import Asked, certain
from pontryagin.optim.row_lengths import Known, formulas
from pontryagin.optim.state import StageState

_SILENT, _SINGLE = 0.01, 1e-6
"""Of the mean over outputs, which keeps rho of silent ones from vanishing; and of a single output."""


class RowStep:
    """Of groups of stages that share their settings."""

    def __init__(self, groups: Sequence[StageGroup | Pack]) -> None:
        self.joined = Joined(groups, ("square", "long_square", "square_weight", "peak", "reach"))
        single = as_type(self.joined.segments.lengths == 1, self.joined.state.square)
        self._formulas = formulas(self.joined.segments)
        self._silent = lerp(_SILENT, _SINGLE, single)
        self._certain = self.joined.of_stages([certain(one.state.samples.item(), one.stage.inputs,
                                                     one.stage.outputs) for one in self.joined.stages])

    def bind(self, addresses: Addresses | None) -> None:
        """Of all gradients and controls: packs read and write by them as far as they are fresh."""
        self.joined.bind(addresses)

    def follow(self, seen: Probed, groups: Groups) -> float:
        """The states have been probed. rho^2 is scaled along: as dW^2 A_c for a G that grows as its inputs
        do. The largest growth."""
        return self.joined.follow(seen, 2 * (1 - self.joined.exponent(groups)), ("square", "long_square"))

    def propose(self, groups: Groups, largest: Mapping[int, float], asked: Asked) -> Proposal:
        """The step of all stages; nothing has been changed. largest: by the id of a parameter, the largest
        entry of its gradient."""
        joined, own, formulas = self.joined, groups[self.joined.first.groups[0]], self._formulas
        sizes, units = joined.largest(largest), None
        if not all(map(is_mild, sizes)):
            sizes = [unit(size) for size in sizes]
            units = joined.of_stages(sizes)
        exponent = joined.exponent(groups)
        factors = None if units is None else [1 / size for size in sizes]
        bias_gradient, scaled = joined.bias_gradients(factors), iter(factors or [])
        gradients, rights, answers = [], [], []
        each_units = [None] * len(joined.groups) if units is None else [
            one.flatten() for one in joined.matrices(units)]
        for group, mean_change, of_group in zip(joined.groups, joined.by_group(bias_gradient), each_units,
                                                strict=True):
            gradient = group.gradient(None if factors is None else [next(scaled) for _ in group.stages])
            gradients.append(gradient)
            rights.append(group.rights(gradient, mean_change, asked.refresh))
            if group.learns(exponent, asked.looked):
                group.learn(gradient, mean_change, of_group)
            answers.append(group.answer(gradient, mean_change, own["damping"], exponent))
        changes = [one.change for one in answers]
        bias, moved = None, flat([one.mean_change for one in answers])
        square = as_type(flat([one.square for one in answers]), joined.state.square)
        if moved is not None:
            square = square + joined.of_all(moved * moved)
        share = flat([full(square, size, 1.0) if one.share is None else one.share
                      for one, size in zip(answers, joined.totals, strict=True)])
        scale, norm, new = formulas.row_lengths(
            self._known(), square, flat([one.norm for one in answers]), share,
            None if units is None else joined.segments.spread(units), own["rho_decay"], own["steps"] + 1,
            formulas.segments, self._silent)
        changed = StageState({})
        changed.entries.update(new._asdict())
        limit = joined.limit(asked, float(own["lr"]), own["steps"], changed)
        if limit is not None:
            scale = formulas.limited(scale, norm, limit, formulas.segments)
        if (lengths := joined.lengths(asked)) is not None:
            scale = scale * joined.segments.spread(lengths)
        narrow = as_type(scale, of(changes[0]))
        rows = [part for part in joined.by_group(narrow) if part is not None]
        if moved is not None:
            bias = (moved - flat([one.shift for one in answers])) * narrow[:joined.biases]
        promise = None
        if asked.promised:
            found = promise_(changes, rows, gradients, self._velocities())
            promise = self._promise(found, bias_gradient, bias, groups, units, asked)
        else:
            scale_(changes, rows)
        return Proposal(joined, changes, bias, norm, changed, promise=promise, rights=rights,
                        refresh=asked.refresh)

    def _known(self) -> Known:
        state = self.joined.state
        return Known(state.square, state.long_square, state.square_weight, state.peak)

    def _velocities(self) -> list[Tensor]:
        return [group.velocity for group in self.joined.groups]

    def _promise(self, found: tuple[Numbers, Numbers], bias_gradient: Outputs | None, bias: Outputs | None,
                 groups: Groups, units: Parts | None, asked: Asked) -> list[Numbers]:
        """found: <G, d> and <G, v> of weights."""
        joined, own = self.joined, groups[self.joined.first.groups[0]]
        new = joined.promised(found[0], bias_gradient, bias, groups, units)
        past = joined.promised(found[1], bias_gradient, None if bias is None else joined.state.bias_velocity,
                               groups, units)
        sure, before, along = self._formulas.row_promises(
            new, past, joined.state.square_weight, self._certain, own["momentum"], own["steps"])
        return [sure, before, *joined.of_last(new, along, asked)]

    def take(self, proposal: Proposal, groups: Groups) -> list[Moves]:
        """The changes of all parameters; momentum, rho and, where it is time, C are updated."""
        joined = self.joined
        joined.renew(proposal.new)
        own = groups[joined.first.groups[0]]
        for group in joined.groups:
            group.keep_learned()
        self._see_outputs(proposal, groups)
        velocities, steps = self._velocities(), list(proposal.changes)
        nesterov_(velocities, steps, own["momentum"])
        if proposal.bias is not None:
            nesterov_([tensor(joined.state.bias_velocity)], [tensor(proposal.bias)], own["momentum"])
        if proposal.refresh:
            without_denormals_(velocities)
        return joined.moves(proposal.changes, proposal.bias, groups)

    def _see_outputs(self, proposal: Proposal, groups: Groups) -> None:
        """C takes in what it is to."""
        own, exponent = groups[self.joined.first.groups[0]], self.joined.exponent(groups)
        for group, right in zip(self.joined.groups, proposal.rights, strict=True):
            if right is not None:
                group.see_outputs(right, own["damping"], exponent)
