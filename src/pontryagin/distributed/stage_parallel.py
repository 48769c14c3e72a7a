"""Stage-parallel maximization after data-parallel propagation: what a solver asks, of one process or many."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import torch
from torch import Tensor

from pontryagin.distributed.agreement import all_or_none, problem_facts, require_same, versions, words
from pontryagin.distributed.assignment import Owners, assign, reassign
from pontryagin.distributed.communicator import Alone, Communicator
from pontryagin.distributed.delivery import Delivery, maximizer_of
from pontryagin.distributed.shared_propagation import SharedPropagation, problem_share
from pontryagin.distributed.stage_models import GroupModel, QuadraticGroupModel, StageModels
from pontryagin.maximizer import GaussNewton, Maximizer, MomentMaximizer
from pontryagin.problem import ControlProblem, Controls, ProblemError
from pontryagin.trajectory import Trajectory, stage_group

PHASES = ("propagation", "moments", "maximization")


class StageParallel:
    """Every rank maximizes its share of the stages. All ranks are given the same problem, controls and
    batches.

    communicator: the ranks. samples: by default every rank propagates all samples, and controls are equal bit
    by bit for any number of ranks; with samples=communicator it propagates its share of them, and owners get
    moments, or states and costates, from the others. Then sums over samples round differently, and controls
    are equal only as far as the iteration does not amplify that (an L-BFGS with line searches does).

    Owners are balanced by measured cost: the seconds that the maximization of each kind of stage took; they
    change only when that lowers the largest load by a tenth. costs: of each stage of the problem, in any
    unit, to be used instead.
    seconds: wall clock of this rank by phase, without communication, which the communicators count.
    """

    def __init__(self, communicator: Communicator | None = None, *, samples: Communicator | None = None,
                 costs: Sequence[float] | None = None) -> None:
        self.communicator: Communicator = communicator or Alone()
        self.samples: Communicator = samples or Alone()
        if self.samples.size not in (1, self.communicator.size):
            raise ProblemError(f"samples: expected the communicator of all {self.communicator.size} ranks, "
                               f"or none, found one of {self.samples.size}")
        self.costs = None if costs is None else list(costs)
        self.owners: Owners | None = None
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._share: tuple[ControlProblem, ControlProblem] | None = None
        self._measured: dict[int, float] = {}

    @property
    def communication(self) -> float:
        """Seconds spent in communication, waiting for other ranks included."""
        return self.communicator.seconds + (self.samples.seconds if self.samples is not self.communicator
                                            else 0.0)

    def require_same(self, problem: ControlProblem, controls: Controls, settings: Sequence[object]) -> None:
        """ProblemError on all ranks when they differ in versions, problem, data, controls or settings."""
        if self.communicator.size > 1:
            facts = {**versions(), **problem_facts(problem, controls), "settings": words(settings),
                     "costs": words(self.costs)}
            require_same(self.communicator, facts)

    def propagate(self, problem: ControlProblem, controls: Controls) -> SharedPropagation:
        """The forward pass, and J of the whole batch."""
        with self.phase("propagation"):
            if self._share is None or self._share[0] is not problem:
                self._share = (problem, problem_share(problem, self.samples))
            return SharedPropagation(self.samples, problem, self._share[1], controls)

    def models(self, maximizer: Maximizer, before: SharedPropagation, starts: Controls | None = None,
               alone: bool = False) -> StageModels:
        """The Hamiltonians of all stages at their owners, after a costate pass of this rank's samples.

        alone: every stage a group of its own. Raises what any owner raises, on every rank.
        """
        problem, controls = before.problem, before.controls
        groups = tuple((n,) for group in problem.groups for n in group) if alone else problem.groups
        chosen = [maximizer_of(maximizer, problem, group) for group in groups]
        with self.phase("propagation"):
            trajectory = before.trajectory()
        with self.phase("moments"):
            delivery = Delivery(self.communicator, self.samples, problem, controls, starts, trajectory,
                                self._owners(problem), groups, chosen)
            with all_or_none(self.communicator):
                own = delivery.models()
            squares = self._costate_squares(problem, controls, trajectory, groups)
            models = []
            for number, (one, model, square) in enumerate(zip(chosen, own, squares, strict=True)):
                kind, group = GroupModel, delivery.bare(number)
                if isinstance(one, MomentMaximizer | GaussNewton):
                    kind = QuadraticGroupModel
                # of all samples, where it has none of its own
                group.__dict__.update(costate_squares=square, samples=problem.samples)
                rows, method = delivery.rows(number), type(one).__name__
                models.append(kind(self.communicator, group, rows, model, method))
            return StageModels(self.communicator, models, self._measured)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds inside, without communication."""
        began, sent = perf_counter(), self.communication
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - began - (self.communication - sent)

    def _owners(self, problem: ControlProblem) -> Owners:
        """Of all stages; those without a control cost nothing."""
        ranks = self.communicator.size
        if self.costs is not None:
            if len(self.costs) != len(problem.stages):
                raise ProblemError(f"expected the costs of {len(problem.stages)} stages, found "
                                   f"{len(self.costs)}")
            self.owners = self.owners or assign(self.costs, ranks)
        elif self.owners is None:
            self.owners = assign([float(stage.size) for stage in problem.stages], ranks)
        elif ranks > 1:
            self.owners = reassign([self._measured.get(n, 0.0) for n in range(len(problem.stages))],
                                   self.owners, ranks)
        return self.owners

    def _costate_squares(self, problem: ControlProblem, controls: Controls, trajectory: Trajectory,
                         groups: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
        """StageGroup.costate_squares over the samples of all ranks, a tensor a group."""
        own = [stage_group(problem, group, controls, trajectory.states, trajectory.costates).costate_squares
               for group in groups]
        samples = len(trajectory.terminal)
        weighted = torch.cat(own) * samples if samples else torch.zeros_like(torch.cat(own))
        joint = self.samples.sum(weighted) / problem.samples
        return torch.split_with_sizes(joint, [len(group) for group in groups])


def group_controls(controls: Controls, models: StageModels, parts: list[Tensor]) -> Controls:
    """All controls, those of the groups replaced by `parts`."""
    result = list(controls)
    for model, part in zip(models, parts, strict=True):
        for index, control in zip(model.group.indices, part.unbind(), strict=True):
            result[index] = control
    return tuple(result)
