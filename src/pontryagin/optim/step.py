"""One step of all parameters: refresh what is due, propose every direction, take them if all are finite."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from pontryagin.affine import MeanVariance
from pontryagin.affine.metric import factorized
from pontryagin.distributed.probes import variances_over_processes
from pontryagin.distributed.reductions import largest_over_processes
from pontryagin.errors import NonFiniteError
from pontryagin.optim.adamw_step import AdamWStep, Update
from pontryagin.optim.addresses import Addresses, addressed
from pontryagin.optim.gradients import largest_entries
from pontryagin.optim.gradients import sizes as sizes_of
from pontryagin.optim.joined import Proposal
from pontryagin.optim.moves import Moves
from pontryagin.optim.numbers import read
from pontryagin.optim.ordinary import Ordinary, ordinary
from pontryagin.optim.promise import PARTS, Asked, Promise
from pontryagin.optim.refresh import Entering, absorb, are_finite, keep
from pontryagin.optim.schedule import is_due, period, stretched
from pontryagin.optim.share import Steps
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.stages import ModelStages, Trained
from pontryagin.optim.state import StageState, States, Undo
from pontryagin.trajectory.local import local_part

ParamGroups = list[dict[str, Any]]
Sizes = Mapping[int, float]
"""By the id of a parameter, the size of its gradient: the largest entry, or where that is mild the norm."""
Fits = list[tuple[Any, ...]]


@dataclass(frozen=True)
class _Plan:
    """Who moves, and how, as long as `fits` stays what it is: the parameters with their types, gradients and
    states. None: it may be otherwise in the next step. others: left to AdamW. addresses: None where there
    are none."""

    fits: Fits | None
    trained: list[Trained]
    steps: Steps
    others: AdamWStep | None
    addresses: Addresses | None


class StepMaker:
    """Makes the changes of all parameters; between steps it keeps what was planned."""

    def __init__(self, stages: ModelStages, refresh_budget: float) -> None:
        self._stages, self._budget = stages, refresh_budget
        self.forget()

    def forget(self) -> None:
        """The plan, whose states have been replaced."""
        self._steps: Steps = []
        self._together: list[Hashable] | None = None
        self._plan: _Plan | None = None
        self._left: list[tuple[int, int]] = []
        self._others: AdamWStep | None = None
        self._is_fresh = False
        self.promise = Promise()
        self.ordinary: Ordinary | None = None  # what makes steps like those of the plan, where that can be

    def moves(self, groups: ParamGroups, states: States, largest: Sizes, looked: bool, asked: Asked
              ) -> list[Moves]:
        """The changes of all parameters; running means are updated, unless a change is not finite.

        Weight and bias of a stage have each its own lr. looked: whether a look has been made, which this step
        takes in. What is promised is in `promise`.
        """
        constraints, share = self._stages.constraints, self._stages.share
        by_id = {id(parameter): group for group in groups for parameter in group["params"]}
        told: dict[str, int] = {}  # what the groups are, if the step is taken
        constraints.prepare(states, by_id)
        undo, fits = Undo([]), None if self._is_fresh else _fits(groups, states)
        if looked or self._plan is None or not (self._is_fresh or self._plan.fits == fits):
            trained = list(self._stages.trained(by_id))
            for stage, weight, _ in trained:
                if share.owns(weight) and (state := StageState(states[weight])).has_moments:
                    stage.conform(state)
            undo = Undo([states[weight] for _, weight, _ in trained] if looked else [])
            told |= self._refresh(trained, groups, states)
            before, self._plan = self._plan, self._planned(trained, groups, states, largest)
            if self._plan is not before:
                known = self._plan.addresses
                self.ordinary = None if constraints.projected or share.group is not None else ordinary(
                    self._plan.steps, self._plan.others, known)
                self._is_fresh = known is not None and known.look(groups, states)
            if seen := _probed(trained, states):
                told |= self._follow(seen, groups)
        plan = self._plan
        proposals = [step.propose(groups, largest, asked) for step in share.arriving(plan.steps)]
        update = None if plan.others is None else plan.others.propose(groups, states, largest, asked, share)
        self.promise = self._check(proposals if update is None else [*proposals, update], undo)
        for group in groups:
            group.update(told)
        moves = share.moves([one for step, proposal in zip(plan.steps, proposals, strict=True)
                             for one in step.take(proposal, groups)], groups)
        if plan.others is not None and update is not None:
            moves += plan.others.take(update, groups, states)
        constraints.step(states, by_id, largest)
        return moves

    def _follow(self, seen: Mapping[AffineStage, MeanVariance | None], groups: ParamGroups
                ) -> dict[str, int]:
        """The states have been probed; where they hardly changed in any process the next probe comes
        later. Returns what groups are to be told."""
        growth = max((step.follow(seen, groups) for step in self._steps), default=1.0)
        own = stretched(groups[0]["probe_stretch"], growth)
        return {"probe_stretch": -largest_over_processes(-own, next(iter(seen)).weight.device)}

    def _planned(self, trained: list[Trained], groups: ParamGroups, states: States, largest: Sizes) -> _Plan:
        """What is stacked stays so unless other stages take part; of the same all stays as it was."""
        if self._plan is not None and _ids(self._plan.trained) == _ids(trained) and (
                self._is_fresh or self._plan.fits == _fits(groups, states)):
            return self._plan
        stages, done = self._stages.movable(trained, largest, groups, states)
        together = [one.identity for one in stages]
        if self._together != together:
            before = {id(one.state.entries): one.state for step in self._steps for one in step.joined.stages}
            self._steps, self._together = self._stages.share.steps(stages), together
            for step in self._steps:
                for one in step.joined.stages:
                    before.pop(id(one.state.entries), None)
            for state in before.values():
                state.leave()
        left = [(parameter, number) for number, group in enumerate(groups) for parameter in group["params"]
                if id(parameter) in largest and id(parameter) not in done
                and id(parameter) not in self._stages.constraints.discrete]
        if self._left != [(id(parameter), number) for parameter, number in left]:
            self._left = [(id(parameter), number) for parameter, number in left]
            names = [self._stages.names[id(parameter)] for parameter, _ in left]
            self._others = AdamWStep([parameter for parameter, _ in left], names,
                                     [number for _, number in left]) if left else None
        settled = len(stages) == sum(id(weight) in largest for _, weight, _ in trained)
        known = self._addressed(groups, states) if settled else None
        return _Plan(_fits(groups, states) if settled else None, trained, self._steps, self._others, known)

    def _addressed(self, groups: ParamGroups, states: States) -> Addresses | None:
        """Of all gradients and controls; steps read and write by them."""
        if not self._stages.share.is_local or self._stages.constraints.discrete:
            return None
        parameters = [parameter for group in groups for parameter in group["params"]]
        known = None if self._plan is None else self._plan.addresses
        if known is None or not known.are_of(parameters, states):
            known = addressed(parameters, states)
        for step in [*self._steps, *([] if self._others is None else [self._others])]:
            step.bind(known)
        return known

    def gradients(self, groups: ParamGroups, states: States) -> Sizes:
        """The size of each gradient. NonFiniteError for one that is not finite."""
        known = None if self._plan is None else self._plan.addresses
        self._is_fresh = known is not None and known.look(groups, states)
        if known is not None and self._is_fresh:
            return known.sizes()
        parameters = [p for group in groups for p in group["params"] if p.grad is not None
                      and p.requires_grad]
        share = self._stages.share
        share.prepare(parameters)
        exact = self._stages.constraints.discrete
        sizes = share.sizes(parameters, (largest_entries if exact else sizes_of)([
            local_part(parameter.grad) for parameter in parameters]))
        if not all(map(isfinite, sizes)):
            self._stages.forget()
            bad = next(p for p, size in zip(parameters, sizes, strict=True) if not isfinite(size))
            raise NonFiniteError(f"the gradient of {self._stages.names[id(bad)]} holds values that are NaN "
                                 "or infinite: nothing has been changed; skip this batch or look at its loss")
        return {id(parameter): size for parameter, size in zip(parameters, sizes, strict=True)}

    def done(self) -> None:
        """Controls have been written."""
        if (known := self.addresses) is not None:
            known.note()

    @property
    def addresses(self) -> Addresses | None:
        """Of this step, where it goes by them."""
        return self._plan.addresses if self._is_fresh and self._plan is not None else None

    def _refresh(self, trained: list[Trained], groups: ParamGroups, states: States) -> dict[str, int]:
        """Take in the moments of the last batch and factorize. Returns what groups are to be told.

        Moments that are not finite are left out: the gradients of their batch are not finite either, or a
        state overflowed in a half-precision pass that had no say in the loss.
        """
        armed = [(stage, bias is not None) for stage, _, bias in trained if stage.captured.armed]
        for stage, _ in armed:
            if stage.weight.grad is None:
                stage.captured.forget()
        has_bias, known = dict(armed), [(stage, StageState(states[stage.weight])) for stage, _ in armed]
        found = self._stages.share.moments(known)
        finite = are_finite([moments for _, moments, _ in found])
        entering = [Entering(stage, state, *stage.entering(state, moments, has_bias[stage], first))
                    for (stage, moments, first), is_finite in zip(found, finite, strict=True) if is_finite
                    for state in (StageState(states[stage.weight]),)]
        wanted = absorb(entering)
        each = [moment for _, _, moment in wanted]
        together = any(moment.mean.device.type != "cpu" for moment in each)
        keep([(stage, state, factor)
              for (stage, state, _), factor in zip(wanted, factorized(each, together), strict=True)])
        self._stages.share.tell(known)
        if armed:
            for step in self._steps:
                step.joined.renew_metrics()
        if not is_due(groups[0]["steps"] + 1, groups[0]["refresh_every"]):
            return {}
        refresh, work = (sum(each) for each in zip((0.0, 0.0), *(
            (stage.refresh_work, stage.propagation_work) for stage, _, _ in trained), strict=True))
        device = next((p.device for group in groups for p in group["params"]), torch.device("cpu"))
        return {"refresh_every": largest_over_processes(period(refresh, work, self._budget), device)}

    def _check(self, proposals: Sequence[Proposal | Update], undo: Undo) -> Promise:
        """Raise NonFiniteError before anything has been changed; returns what is promised in all."""
        sizes = [size for proposal in proposals for size in proposal.sizes()]
        promises = [one.promise for one in proposals if one.promise is not None]
        found = read([*sizes, *(number for one in promises for number in one)])
        numbers, share = found[len(sizes):], self._stages.share
        are_finite, sums = share.agreed(all(map(isfinite, found[:len(sizes)])), [
            sum(numbers[n::PARTS], 0.0) for n in range(PARTS)])
        if are_finite:
            return Promise(*sums)
        undo.restore()
        self.forget()
        self._stages.forget()
        names = [proposal.names for proposal in proposals if proposal.names]
        raise NonFiniteError(f"the step of {', '.join(share.names(names))} is not finite, though its "
                             "gradients are: nothing has been changed; look at the inputs of this stage, and "
                             "at its weights")


def _fits(groups: ParamGroups, states: States) -> Fits:
    return [(id(p), p.grad is None, p.requires_grad, p.dtype, p.device, id(states.get(p)))
            for group in groups for p in group["params"]]


def _ids(trained: list[Trained]) -> list[int]:
    return [id(part) for one in trained for part in one]


def _probed(trained: list[Trained], states: States) -> dict[AffineStage, MeanVariance | None]:
    """What was seen of the inputs of the last batch, of the stages that probed it."""
    probing = [stage for stage, weight, _ in trained
               if stage.captured.probing and StageState(states[weight]).has_moments]
    for stage in probing:
        if stage.weight.grad is None:
            stage.captured.forget()
    if not probing:
        return {}
    found = variances_over_processes([stage.captured.probe.take() for stage in probing],
                                     lambda: [stage.zeros().mean for stage in probing])
    return dict(zip(probing, found, strict=True))
