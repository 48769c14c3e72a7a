"""The models of all stages, each held by the rank that owns it, and asked together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.distributed.agreement import raise_together
from pontryagin.distributed.communicator import Communicator, Pending
from pontryagin.hamiltonian import Measures, Penalties
from pontryagin.maximizer import HamiltonianModel, QuadraticModel
from pontryagin.problem import NonFiniteError, ProblemError
from pontryagin.trajectory import StageGroup

Controls = Float[Tensor, "stage control"]
Each = Sequence[Float[Tensor, "_ _"]]
"""Controls, one tensor (stage, control) a group."""


@dataclass
class GroupModel:
    """Equal stages, maximized by their owners; a HamiltonianModel whose every call is collective.

    group: without states and costates, which the owners hold. rows[r]: the places in the group of the stages
    of rank r. own: the model of this rank's stages, None without any. method: the name of the maximizer.
    seconds: of the last maximization, for one stage.
    """

    communicator: Communicator
    group: StageGroup
    rows: list[list[int]]
    own: HamiltonianModel | None
    method: str
    evaluations: int = 0
    seconds: float = 0.0

    def maximize(self, penalties: Penalties) -> Controls:
        """Each stage by its owner, on every rank."""
        return _finish(self.communicator, [self.begin(penalties)])[0]

    def begin(self, penalties: Penalties) -> "Traveling":
        """Maximize the own stages and send them off."""
        return self._send(lambda model: model.maximize(penalties))

    def measure(self, controls: Controls) -> Measures:
        """Each stage by its owner, on every rank."""
        return measure_together(self.communicator, [self], [controls])[0]

    def _send(self, call: Callable[[Any], Controls]) -> "Traveling":
        """NaN travels instead of controls when the owner's call fails, so that all ranks notice."""
        error, own = None, self.group.control[:0]
        if self.own is not None:
            began = perf_counter()
            try:
                own = call(self.own)
            except (ProblemError, NonFiniteError) as caught:
                error, own = caught, torch.full_like(self.own.group.control, torch.nan)
            self.seconds = (perf_counter() - began) / len(own)
        return Traveling(self.communicator.broadcast(own, [len(rows) for rows in self.rows]), self, error)


class QuadraticGroupModel(GroupModel):
    """The same for stages whose argmax is linear in the gradient; a QuadraticModel."""

    own: QuadraticModel | None
    _gradient: Controls | None = None

    @property
    def gradient(self) -> Controls:
        """mean over all samples of grad_theta H, sent once."""
        if self._gradient is None:
            self._gradient = _finish(self.communicator, [self._send(lambda model: model.gradient)])[0]
        return self._gradient

    def solve(self, gradient: Controls, penalties: Penalties) -> Controls:
        """The inverse Hessian of -H~ times the gradient, each stage by its owner."""
        own = gradient[self.rows[self.communicator.rank]]
        return _finish(self.communicator, [self._send(lambda model: model.solve(own, penalties))])[0]


class StageModels(list[GroupModel]):
    """The models of all groups of one iteration. seconds: takes the measured cost of each stage."""

    def __init__(self, communicator: Communicator, models: list[GroupModel],
                 seconds: dict[int, float]) -> None:
        super().__init__(models)
        self.communicator, self.seconds = communicator, seconds
        self._last: tuple[list[Tensor], list[Measures]] | None = None

    def maximize(self, penalties: Sequence[Penalties]) -> list[Float[Tensor, "_ _"]]:
        """theta* of all stages, a tensor a group; one group's travel while the next group is maximized."""
        return _finish(self.communicator,
                       [model.begin(own) for model, own in zip(self, penalties, strict=True)])

    def measure(self, controls: Each) -> list[Measures]:
        """Gains and feasibility errors of all stages, in one sum over ranks; of the same tensors as last time
        what was found then."""
        if self._last is not None and all(old is new for old, new in zip(self._last[0], controls,
                                                                         strict=True)):
            return self._last[1]
        measures = measure_together(self.communicator, self, controls)
        self._last = list(controls), measures
        self.seconds.update((n, model.seconds) for model in self for n in model.group.indices)
        return measures


def measure_together(communicator: Communicator, models: Sequence[GroupModel],
                     controls: Each) -> list[Measures]:
    """Measures by the owners; counted evaluations and measured seconds travel along. float64."""
    tables = []
    for model, new in zip(models, controls, strict=True):
        table = torch.zeros(len(new), 5, dtype=torch.float64, device=new.device)
        if model.own is not None:
            mine = model.rows[communicator.rank]
            measured = model.own.measure(new if len(mine) == len(new) else new[mine])
            rest = [torch.full_like(measured.gain, value) for value in (model.own.evaluations, model.seconds)]
            table[mine] = torch.stack([*measured, *rest], 1).double()
        tables.append(table)
    joint = communicator.sum(torch.cat(tables)).split([len(new) for new in controls])
    result = []
    for model, table in zip(models, joint, strict=True):
        model.evaluations, model.seconds = int(table[:, 3].max()), float(table[:, 4].mean())
        result.append(Measures(*table[:, :3].unbind(1)))
    return result


@dataclass(frozen=True)
class Traveling:
    """Controls of a group on their way, and why this rank could not compute its own."""

    pending: Pending
    model: GroupModel
    error: Exception | None

    def arrive(self) -> Controls:
        """In the order of the group."""
        parts, rows = self.pending.wait(), self.model.rows
        if len(parts) == 1:
            return parts[0]
        result = torch.empty_like(self.model.group.control)
        for part, places in zip(parts, rows, strict=True):
            result[places] = part
        return result


def _finish(communicator: Communicator, traveling: list[Traveling]) -> list[Float[Tensor, "_ _"]]:
    arrived = [one.arrive() for one in traveling]
    if not all(bool(one.isfinite().all()) for one in arrived):  # the same on every rank
        raise_together(communicator, next((one.error for one in traveling if one.error is not None), None))
    return arrived
