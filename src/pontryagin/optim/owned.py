"""Stages with owners: each is stepped by one process, which alone has its metric and momentum.

The gradient of a stage is brought whole to its owner, who takes the argmax, and the change is sent back, each
process getting its part of it: all of it under DistributedDataParallel, its shard under fully_shard. Both
travel in buckets, the next while the argmax of the last is taken. Moments are reduced once, at the owner.
What a step has to know of all stages (largest gradients, lengths of weights, promises) are a few numbers a
stage.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pontryagin.distributed.communicator import Pending
from pontryagin.distributed.mesh import Spread, spread_of, spread_over
from pontryagin.distributed.places import Place, buckets, from_owners, to_owners
from pontryagin.errors import ProblemError
from pontryagin.optim.gradients import dense
from pontryagin.optim.group import Groups, TrainedStage, grouped
from pontryagin.optim.moves import Moves
from pontryagin.optim.owned_group import Held, OwnedGroup, OwnedStage
from pontryagin.optim.owned_state import OwnedState
from pontryagin.optim.ownership import Ownership
from pontryagin.optim.packed_moments import merged, packed, unpacked
from pontryagin.optim.polar_step import PolarStep
from pontryagin.optim.row_step import RowStep
from pontryagin.optim.settings import StageOwners, holds
from pontryagin.optim.share import Saved, Seen, Share, Steps, joined
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.state import Entries, StageState, States
from pontryagin.trajectory.local import at_rest, is_spread, local_part, shards_around

_OnTheWay = tuple[list[nn.Parameter], Pending]
"""Parameters, and what arrives of each."""


def share_of(model: nn.Module, request: Any) -> Share:
    """Owners where parameters lie in parts, or where they are asked for and there are several processes."""
    owners = request if isinstance(request, StageOwners) else StageOwners()
    spread = spread_of(model.named_parameters())
    started = distributed.is_available() and distributed.is_initialized()
    if spread is None and owners is request and started:
        spread = spread_over(owners.process_group)
    if spread is None:
        return Share()
    has_parts = spread_of(model.named_parameters()) is not None
    is_fully_sharded = holds("torch.distributed.fsdp", "FSDPModule", model.modules())
    if (name := shards_around(model)) is not None:
        raise ProblemError(f"EMSA: {name} is sharded from outside of the {type(model).__name__} that EMSA "
                           "was given: make EMSA on the whole module that fully_shard was called on")
    if is_fully_sharded:
        _require_all_within(model)
    return Owned(spread, owners.bucket, spread.ranks.size if has_parts and not is_fully_sharded else 1)


def _require_all_within(model: nn.Module) -> None:
    """ProblemError for a parameter outside of what fully_shard was called on, whose gradient nobody
    averages."""
    kind = sys.modules["torch.distributed.fsdp"].FSDPModule
    within = {id(parameter) for module in model.modules() if isinstance(module, kind)
              for parameter in module.parameters()}
    outside = [name for name, parameter in model.named_parameters()
               if parameter.requires_grad and id(parameter) not in within and not is_spread(parameter)]
    if outside:
        raise ProblemError(f"EMSA: {outside[0]} is in no module that fully_shard was called on, so each "
                           "process has a gradient of its own: call fully_shard(model) on the whole too "
                           "(ignored_params names those whose gradients you average yourself)")


class Owned(Share):
    """Owners are balanced by what a step of their stages costs, the most expensive first. bucket: numbers
    that travel together. copies: how many ranks see the same rows, 1 where each has its own."""

    is_local = False

    def __init__(self, spread: Spread, bucket: int, copies: int) -> None:
        self._bucket, self._copies = bucket, copies
        self._owners, self._ranks = Ownership(spread), spread.ranks
        self._kept, self._replicas = OwnedState(self._owners), spread.replicas
        self.group = distributed.group.WORLD if spread.everyone.group is None else spread.everyone.group
        self._stages: dict[int, AffineStage] = {}
        self._held = Held()
        self._movable: Sequence[TrainedStage] = []
        self._buckets: list[list[TrainedStage]] = []
        self._steps: list[Steps] = []

    def assign(self, stages: Sequence[AffineStage]) -> None:
        """Owners for the stages that have none yet."""
        self._stages |= {id(stage.weight): stage for stage in stages}
        self._owners.assign(stages)

    def owns(self, parameter: nn.Parameter) -> bool:
        """Whether this rank is the owner."""
        return self._owners.is_ours(parameter)

    def counts(self, parameter: nn.Parameter) -> bool:
        """What lies whole everywhere counts once."""
        return self._owners.is_cut(parameter) or self._ranks.rank == 0

    def rest(self, model: nn.Module) -> None:
        """In parts."""
        at_rest(model)

    def prepare(self, parameters: Any) -> None:
        """Gradients lie as their parameters do."""
        for parameter in parameters:
            grad = parameter.grad
            if is_spread(parameter) and grad is not None and grad.placements != parameter.placements:
                parameter.grad = grad.redistribute(placements=parameter.placements)

    def sizes(self, parameters: Sequence[nn.Parameter], own: list[float]) -> list[float]:
        """Over all parts; the squared norms of weights along with them."""
        stages = [parameter for parameter in parameters if id(parameter) in self._stages]
        cut = [parameter for parameter in stages if self._owners.is_cut(parameter)]
        self._held.squares = {id(one): self._squares(one) for one in stages
                              if self.owns(one) and not self._owners.is_cut(one)}
        if not any(map(self._owners.is_cut, parameters)):
            return own
        squares = [self._squares(parameter) for parameter in cut]
        largest = torch.tensor(own, dtype=torch.float64, device=self._ranks.device)
        found = self._ranks.stack(torch.cat([largest, *squares]))
        totals = found[:, len(own):].sum(0).split([one.numel() for one in squares])
        self._held.squares |= zip(map(id, cut), totals, strict=True)
        return found[:, :len(own)].amax(0).tolist()

    def begin(self, failed: bool) -> None:
        """One that cannot step does not leave the others waiting."""
        found = self._ranks.stack(torch.tensor([float(failed)], device=self._ranks.device)).flatten()
        ranks = ", ".join(map(str, found.nonzero().flatten().tolist()))
        if ranks and not failed:
            raise ProblemError(f"EMSA: rank {ranks} could not begin this step: nothing has been changed; "
                               "look at its message")

    def _squares(self, weight: nn.Parameter) -> Tensor:
        """Of this rank's part, (group)."""
        part, stage = local_part(weight.detach()), self._stages[id(weight)]
        if stage.groups == 1:
            return torch.linalg.vector_norm(part, dtype=torch.float64).square().view(1)
        entire = part.new_zeros(weight.shape)
        self._owners.place(weight).part(entire, self._ranks.rank, self._ranks.size).copy_(part)
        return torch.linalg.vector_norm(stage.map.matrix(entire), dim=(1, 2), dtype=torch.float64).square()

    def initialize(self, stage: AffineStage, state: StageState, has_bias: bool) -> None:
        """The owner alone has all of it."""
        if self.owns(stage.weight):
            stage.initialize(state, has_bias)
        elif "refreshes" not in state:
            state.refreshes, state.rows, state.samples = (torch.zeros(()) for _ in range(3))

    def moments(self, armed: Sequence[tuple[AffineStage, StageState]]) -> list[Seen]:
        """Each rank's go to the owner, in buckets."""
        vectors = [packed(stage) for stage, _ in armed]
        mine: list[tuple[AffineStage, Tensor]] = []
        for run in buckets([one.numel() for one in vectors], self._bucket):
            parts, stages = [vectors[n].unsqueeze(0) for n in run], [armed[n][0] for n in run]
            places = [Place(torch.Size((self._ranks.size, part.numel())), part.dtype, 0,
                            self._owners.owners[id(stage.weight)])
                      for stage, part in zip(stages, parts, strict=True)]
            own = [stage for stage in stages if self.owns(stage.weight)]
            mine += zip(own, to_owners(self._ranks, places, parts).wait(), strict=True)
        joint = [(stage, merged(stage, rows)) for stage, rows in mine]
        if self._replicas is not None:
            joint = [(stage, merged(stage, self._replicas.stack(one))) for stage, one in joint]
        found = []
        for stage, one in joint:
            moments, first = unpacked(stage, one)
            if moments is not None:
                found.append((stage, moments, first._replace(rows=first.rows // self._copies)))
        return found

    def tell(self, armed: Sequence[tuple[AffineStage, StageState]]) -> None:
        """How often moments have been taken in, and which step a stage takes."""
        if not armed:
            return
        own = [[float(state.refreshes), float(state.rows), float(state.samples)]
               if self.owns(stage.weight) and "refreshes" in state else [0.0] * 3 for stage, state in armed]
        found = self._ranks.stack(torch.tensor(own, device=self._ranks.device)).tolist()
        for n, (stage, state) in enumerate(armed):
            told = torch.tensor(found[self._owners.owners[id(stage.weight)]][n], dtype=torch.float32)
            if not self.owns(stage.weight) and told[0]:
                state.refreshes, state.rows, state.samples = (one.clone() for one in told)

    def steps(self, stages: Sequence[TrainedStage]) -> Steps:
        """Bucket by bucket."""
        self._movable = stages
        sizes = [one.weight.numel() for one in stages]
        self._buckets = [[stages[n] for n in run] for run in buckets(sizes, self._bucket)]
        own = [[self._owned(one) for one in bucket if self.owns(one.weight)] for bucket in self._buckets]
        self._steps = [joined(grouped(each, OwnedGroup)) for each in own]
        return [step for steps in self._steps for step in steps]

    def _owned(self, one: TrainedStage) -> OwnedStage:
        return OwnedStage(one.stage, one.weight, one.bias, one.state, one.groups, self._held)

    def arriving(self, steps: Steps) -> Iterator[RowStep | PolarStep]:
        """The next bucket travels while the argmax of one is taken."""
        pending = [self._bring(bucket) for bucket in self._buckets[:1]]
        for number, own in enumerate(self._steps):
            parameters, coming = pending.pop()
            pending += [self._bring(bucket) for bucket in self._buckets[number + 1:number + 2]]
            self._held.gradients |= zip(map(id, parameters), coming.wait(), strict=True)
            yield from own

    def _bring(self, bucket: Sequence[TrainedStage]) -> _OnTheWay:
        parameters = [parameter for parameter in _parameters(bucket) if parameter.grad is not None]
        parts = [local_part(dense(parameter.grad)) for parameter in parameters]  # type: ignore[arg-type]
        return ([parameter for parameter in parameters if self.owns(parameter)],
                to_owners(self._ranks, list(map(self._owners.place, parameters)), parts))

    def agreed(self, are_finite: bool, sums: list[float]) -> tuple[bool, list[float]]:
        """Sums in the order of the ranks, the same everywhere."""
        own = torch.tensor([float(not are_finite), *sums], dtype=torch.float64, device=self._ranks.device)
        bad, *found = self._ranks.stack(own).sum(0).tolist()
        return bad == 0, found

    def names(self, own: list[str]) -> list[str]:
        """Of all ranks."""
        return sorted({name for names in self._ranks.gather(own) for name in names})

    def moves(self, own: list[Moves], groups: Groups) -> list[Moves]:
        """Each rank gets its parts of the changes."""
        self._held.gradients = {}
        changes = {id(parameter): direction for one in own
                   for parameter, direction in zip(one.parameters, one.directions, strict=True)}
        numbers = {id(parameter): n for n, group in enumerate(groups) for parameter in group["params"]}
        found: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        pending = [self._send(bucket, changes) for bucket in self._buckets]
        for parameters, coming in pending:
            for parameter, part in zip(parameters, coming.wait(), strict=True):
                ours = found.setdefault(numbers[id(parameter)], ([], []))
                ours[0].append(parameter)
                ours[1].append(part)
        return [Moves.of(*both, groups[number]) for number, both in found.items()]

    def _send(self, bucket: Sequence[TrainedStage], changes: Mapping[int, Tensor]) -> _OnTheWay:
        parameters = _parameters(bucket)
        wholes = [changes[id(parameter)] for parameter in parameters if self.owns(parameter)]
        return parameters, from_owners(self._ranks, list(map(self._owners.place, parameters)), wholes)

    def bases(self, wanted: Sequence[AffineStage], states: States) -> Mapping[int, Entries]:
        """Of the subspaces in which a second moment is known, from their owners."""
        wanted = [stage for stage in wanted if not stage.is_exact and not stage.map.one_hot
                  and StageState(states.get(stage.weight, {})).has_moments]
        if not wanted:
            return {}
        layouts = [stage.layout()["basis"] for stage in wanted]
        places = [Place(shape, dtype, None, self._owners.owners[id(stage.weight)])
                  for stage, (shape, dtype) in zip(wanted, layouts, strict=True)]
        own = [StageState(states[stage.weight]).basis for stage in wanted if self.owns(stage.weight)]
        found = from_owners(self._ranks, places, own).wait()
        return {id(stage.weight): {"basis": basis} for stage, basis in zip(wanted, found, strict=True)}

    def keeps_average(self, parameter: Tensor) -> bool:
        """Parts everywhere, what lies whole everywhere at the owner."""
        return self._kept.keeps_average(parameter)

    def bring_averages(self, parameters: Sequence[nn.Parameter], states: States) -> None:
        """From their owners to all."""
        self._kept.bring_averages(parameters, states)

    def drop_averages(self, parameters: Sequence[nn.Parameter], states: States) -> None:
        """Each owner keeps its own."""
        self._kept.drop_averages(parameters, states)

    def saved(self, state: Saved, parameters: Sequence[nn.Parameter]) -> Saved:
        """The same for any number of processes."""
        return self._kept.saved(state, parameters)

    def taken(self, parameter: nn.Parameter, name: str, value: Tensor) -> Tensor | None:
        """What is kept here of a saved entry."""
        return self._kept.taken(parameter, name, value)


def _parameters(bucket: Sequence[TrainedStage]) -> list[nn.Parameter]:
    return [parameter for one in bucket for parameter in (one.weight, one.bias) if parameter is not None]
