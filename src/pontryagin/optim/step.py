"""One step of all parameters: refresh what is due, propose every direction, take them if all are finite."""

from collections.abc import Hashable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine import MeanVariance
from pontryagin.affine.metric import factorized
from pontryagin.distributed.probes import variances_over_processes
from pontryagin.distributed.reductions import largest_over_processes
from pontryagin.errors import NonFiniteError
from pontryagin.optim import adamw
from pontryagin.optim.gradients import largest_entries
from pontryagin.optim.group import Move, Proposal, StageGroup, TrainedStage, grouped
from pontryagin.optim.schedule import is_due, period
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.stages import ModelStages, Trained
from pontryagin.optim.state import StageState, States, Undo

ParamGroups = list[dict[str, Any]]
Sizes = Mapping[int, float]
"""By the id of a parameter, the largest entry of its gradient."""


class StepMaker:
    """Makes the changes of all parameters; between steps it keeps the groups of equal stages."""

    def __init__(self, stages: ModelStages, refresh_budget: float) -> None:
        self._stages, self._budget = stages, refresh_budget
        self.forget()

    def forget(self) -> None:
        """The groups, whose states have been replaced."""
        self._groups: list[StageGroup] = []
        self._together: list[Hashable] | None = None

    def moves(self, groups: ParamGroups, states: States, largest: Sizes, looked: bool,
              bounded: bool) -> list[Move]:
        """The changes of all parameters; running means are updated, unless a change is not finite.

        Weight and bias of a stage have each its own lr. looked: whether a look has been made, which this step
        takes in. bounded: whether steps reach as far as weights allow.
        """
        by_id = {id(parameter): group for group in groups for parameter in group["params"]}
        constraints = self._stages.constraints
        constraints.prepare(states, by_id)
        trained = list(self._stages.trained(by_id))
        for stage, weight, _ in trained:
            if (state := StageState(states[weight])).has_moments:
                stage.conform(state)
        undo = Undo([states[weight] for _, weight, _ in trained] if looked else [])
        self._refresh(trained, groups, states)
        stages, done = self._stages.movable(trained, largest, groups, states)
        if seen := _probed(trained, states):
            for group in self._grouped(stages):
                group.follow(seen, groups)
        proposals = [group.propose(groups, largest, bounded) for group in self._grouped(stages)]
        others = [parameter for group in groups for parameter in group["params"]
                  if id(parameter) in largest and id(parameter) not in done
                  and id(parameter) not in constraints.discrete]
        directions = [adamw.direction(adamw.current(states[parameter], parameter), parameter.grad,
                                      largest[id(parameter)]) for parameter in others]
        self._check(proposals, others, [change for change, _ in directions], undo)
        moves = [move for proposal in proposals for move in proposal.group.take(proposal, groups)]
        for parameter, (change, new) in zip(others, directions, strict=True):
            states[parameter].update(new)
            own = by_id[id(parameter)]
            change = change * (own["lr"] * own["adamw_lr"])
            moves.append((parameter, torch.view_as_complex(change) if parameter.is_complex() else change))
        constraints.step(states, by_id, largest)
        return _with_decay(moves, groups)

    def gradients(self, groups: ParamGroups) -> Sizes:
        """The largest entry of each gradient. NonFiniteError for one that is not finite."""
        parameters = [p for group in groups for p in group["params"] if p.grad is not None
                      and p.requires_grad]
        sizes = largest_entries([parameter.grad for parameter in parameters])
        if not all(map(isfinite, sizes)):
            self._stages.forget()
            bad = next(p for p, size in zip(parameters, sizes, strict=True) if not isfinite(size))
            raise NonFiniteError(f"the gradient of {self._stages.names[id(bad)]} holds values that are NaN "
                                 "or infinite: nothing has been changed; skip this batch or look at its loss")
        return {id(parameter): size for parameter, size in zip(parameters, sizes, strict=True)}

    def _grouped(self, stages: list[TrainedStage]) -> list[StageGroup]:
        """As in the last step, unless other stages take part in this one."""
        together = [one.identity for one in stages]
        if self._together != together:
            self._groups, self._together = grouped(stages), together
        return self._groups

    def _refresh(self, trained: list[Trained], groups: ParamGroups, states: States) -> None:
        """Take in the moments of the last batch and factorize.

        Moments that are not finite are left out: the gradients of their batch are not finite either, or a
        state overflowed in a half-precision pass that had no say in the loss.
        """
        armed = [(stage, bias is not None) for stage, _, bias in trained if stage.captured.armed]
        for stage, _ in armed:
            if stage.weight.grad is None:
                stage.captured.forget()
        found = [(*one, moments) for one in armed if (moments := one[0].seen()) is not None]
        finite = _numbers([moments.finite() for _, _, moments in found])
        wanted = []
        for (stage, has_bias, moments), is_finite in zip(found, finite, strict=True):
            state = StageState(states[stage.weight])
            if is_finite and (moment := stage.absorb(state, moments, has_bias)) is not None:
                wanted.append((stage, state, moment))
        each = [moment for _, _, moment in wanted]
        together = any(moment.mean.device.type != "cpu" for moment in each)
        for (stage, state, _), factor in zip(wanted, factorized(each, together), strict=True):
            stage.keep(state, factor)
        if armed:
            for group in self._groups:
                group.renew()
        if is_due(groups[0]["steps"] + 1, groups[0]["refresh_every"]):
            refresh, work = (sum(each) for each in zip((0.0, 0.0), *(
                (stage.refresh_work, stage.propagation_work) for stage, _, _ in trained), strict=True))
            device = next((p.device for group in groups for p in group["params"]), torch.device("cpu"))
            every = largest_over_processes(period(refresh, work, self._budget), device)
            for own in groups:
                own["refresh_every"] = every

    def _check(self, proposals: list[Proposal], others: list[nn.Parameter], changes: list[Tensor], undo: Undo
               ) -> None:
        """Raise NonFiniteError before anything has been changed."""
        sizes = [proposal.size() for proposal in proposals]
        sizes += [torch.linalg.vector_norm(change) for change in changes if change.numel()]
        if all(isfinite(size) for size in _numbers(sizes)):
            return
        undo.restore()
        self.forget()
        self._stages.forget()
        names = [proposal.group.names for proposal in proposals if not proposal.size().isfinite()]
        names += [self._stages.names[id(parameter)] for parameter, change in zip(others, changes, strict=True)
                  if not change.isfinite().all()]
        raise NonFiniteError(f"the step of {', '.join(names)} is not finite, though its gradients are: "
                             "nothing has been changed; look at the inputs of this stage, and at its weights")


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
                                     [StageState(states[stage.weight]).mean for stage in probing])
    return dict(zip(probing, found, strict=True))


def _with_decay(moves: list[Move], groups: ParamGroups) -> list[Move]:
    """Decoupled weight decay of the matrices that have a gradient: one change a parameter."""
    rates = {id(parameter): group["lr"] * group["weight_decay"] for group in groups if group["weight_decay"]
             for parameter in group["params"] if parameter.ndim > 1}
    if not rates:
        return moves
    return [(parameter,
             change.sub(parameter, alpha=rates[id(parameter)]) if id(parameter) in rates else change)
            for parameter, change in moves]


def _numbers(sizes: Sequence[Tensor]) -> list[float]:
    """Read in one go."""
    if not sizes:
        return []
    return torch.stack([size.to(sizes[0].device, torch.float64) for size in sizes]).tolist()
