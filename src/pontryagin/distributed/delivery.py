"""What the owner of a stage needs, brought to it: moments where they do, states and costates elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from pontryagin.affine import StageMoments, merge_moments
from pontryagin.distributed.assignment import Owners, share
from pontryagin.distributed.communicator import Communicator, Form
from pontryagin.maximizer import ByForm, HamiltonianModel, Maximizer, MomentMaximizer
from pontryagin.problem import ControlProblem, Controls
from pontryagin.trajectory import ByTime, StageGroup, Trajectory, stage_group


@dataclass(frozen=True)
class Delivery:
    """One iteration's states and costates, of this rank's samples, and who owns which stage.

    groups: of equal stages; chosen: the maximizer of each. stages: the ranks that own them; samples: the same
    ranks where they have shares of the samples, or Alone where each has all.
    """

    stages: Communicator
    samples: Communicator
    problem: ControlProblem
    controls: Controls
    starts: Controls | None
    trajectory: Trajectory
    owners: Owners
    groups: Sequence[tuple[int, ...]]
    chosen: Sequence[Maximizer]

    @cached_property
    def _by_moments(self) -> list[bool]:
        """Of each group; asked often, and isinstance of a protocol is slow."""
        return [isinstance(maximizer, MomentMaximizer) for maximizer in self.chosen]

    def models(self) -> list[HamiltonianModel | None]:
        """The model of this rank's stages in every group, None where it has none. In one exchange."""
        me, ranks = self.stages.rank, range(self.samples.size)
        senders = [rank for rank in ranks if self._samples(rank)]
        receivers = [me] if self.samples.size == 1 else list(ranks)
        outgoing = [self._parcel(rank) if self.samples.rank in senders else [] for rank in receivers]
        announced = [self._forms(me, self._samples(rank)) if rank in senders else [] for rank in ranks]
        arrived = self.samples.exchange(outgoing, announced)
        parcels = [iter(arrived[rank]) for rank in senders]
        samples = [self._samples(rank) for rank in senders]
        by_moments = {}
        for number in self._groups(me, moments=True):
            parts = [StageMoments.from_tensors(list(islice(parcel, 6))) for parcel in parcels]
            by_moments[number] = merge_moments(parts, samples)
        states, costates = self._whole([list(parcel) for parcel in parcels])
        return [self._model(number, by_moments.get(number), states, costates)
                for number in range(len(self.chosen))]

    def rows(self, number: int) -> list[list[int]]:
        """The places in a group of each rank's stages."""
        return [[place for place, n in enumerate(self.groups[number]) if self.owners[n] == rank]
                for rank in range(self.stages.size)]

    def bare(self, number: int) -> StageGroup:
        """A group with its controls alone."""
        return self._bare(self.groups[number])

    def _samples(self, rank: int) -> int:
        rows = share(self.problem.samples, rank, self.samples.size)
        return rows.stop - rows.start

    def _own(self, number: int, rank: int) -> tuple[int, ...]:
        return tuple(n for n in self.groups[number] if self.owners[n] == rank)

    def _groups(self, rank: int, moments: bool) -> list[int]:
        """Groups in which a rank has stages, of one kind of maximizer."""
        return [number for number in range(len(self.chosen))
                if self._own(number, rank) and self._by_moments[number] == moments]

    def _times(self, rank: int) -> list[int]:
        """The n of the x_n and p_n that a rank's stages need whole."""
        return sorted({time for number in self._groups(rank, moments=False) for n in self._own(number, rank)
                       for time in (n, n + 1)})

    def _parcel(self, rank: int) -> list[Tensor]:
        """Of this rank's samples, for a rank: moments of its affine stages, states and costates of others."""
        tensors = []
        for number in self._groups(rank, moments=True):
            maximizer = self.chosen[number]
            assert isinstance(maximizer, MomentMaximizer)
            group = stage_group(self.problem, self._own(number, rank), self.controls, self.trajectory.states,
                                self.trajectory.costates)
            tensors += maximizer.moments(group).tensors()
        for time in self._times(rank):
            tensors += [self.trajectory.states[time], self.trajectory.costates[time]]
        return tensors

    def _forms(self, rank: int, samples: int) -> list[Form]:
        """Of the parcel that a rank with so many samples sends to this one."""
        forms: list[Form] = []
        for number in self._groups(rank, moments=True):
            stages = self._own(number, rank)
            affine, dtype = self.problem.stages[stages[0]].affine, self.trajectory.states[stages[0]].dtype
            assert affine is not None
            forms += [(shape, dtype) for shape in StageMoments.shapes(affine, len(stages))]
        for time in self._times(rank):
            state = self.trajectory.states[time]
            forms += [(torch.Size([samples, *state.shape[1:]]), state.dtype)] * 2
        return forms

    def _whole(self, parcels: list[list[Tensor]]) -> tuple[ByTime, ByTime]:
        """States and costates of all samples at the times that this rank needs."""
        times = self._times(self.stages.rank)
        whole = [parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*parcels, strict=True)]
        return dict(zip(times, whole[::2], strict=True)), dict(zip(times, whole[1::2], strict=True))

    def _model(self, number: int, moments: StageMoments | None, states: ByTime, costates: ByTime
               ) -> HamiltonianModel | None:
        stages, maximizer = self._own(number, self.stages.rank), self.chosen[number]
        if not stages:
            return None
        if moments is not None and isinstance(maximizer, MomentMaximizer):
            return maximizer.model_of_moments(self._bare(stages), moments)
        return maximizer.model(stage_group(self.problem, stages, self.controls, states, costates,
                                           self.starts))

    def _bare(self, stages: tuple[int, ...]) -> StageGroup:
        control = torch.stack([self.controls[n] for n in stages])
        return StageGroup(self.problem.stages[stages[0]], stages, control, control, (), (), (), (),
                          self.problem.upstream(stages))


def maximizer_of(maximizer: Maximizer, problem: ControlProblem, group: tuple[int, ...]) -> Maximizer:
    """The method that a group is really maximized by."""
    while isinstance(maximizer, ByForm):
        maximizer = maximizer.choice(problem.stages[group[0]])
    return maximizer
