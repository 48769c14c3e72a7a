"""Which rank owns what of a model, and where parameters lie."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from pontryagin.distributed.assignment import assign
from pontryagin.distributed.communicator import Communicator
from pontryagin.distributed.mesh import Spread
from pontryagin.distributed.places import Place
from pontryagin.optim.stage import AffineStage

_POLAR, _APPLIED = 18.0, 4.0
"""Flops of a polar factor: so many times s^3, s the shorter side, for its polynomials of the Gram matrix, and
so many times s^2 l for the matrix and its application."""


@dataclass(frozen=True)
class Ownership:
    """The owners of weights and biases of stages, by their ids; others have none."""

    spread: Spread
    owners: dict[int, int] = field(default_factory=dict)

    @property
    def ranks(self) -> Communicator:
        """Those that share parameters, or stages."""
        return self.spread.ranks

    def assign(self, stages: Sequence[AffineStage]) -> None:
        """Owners for the stages that have none yet, balanced by what a step costs; alternatives of one weight
        have the same."""
        new: dict[int, AffineStage] = {}
        for stage in stages:
            if id(stage.weight) not in self.owners:
                new.setdefault(id(stage.weight), stage)
        found = assign([_cost(stage) for stage in new.values()], self.ranks.size)
        for stage, owner in zip(new.values(), found, strict=True):
            for parameter in (stage.weight, stage.captured.bias):
                if parameter is not None:
                    self.owners[id(parameter)] = owner

    def of(self, parameter: Tensor) -> int | None:
        """The owner, if there is one."""
        return self.owners.get(id(parameter))

    def is_ours(self, parameter: Tensor) -> bool:
        """Whether this rank is the owner."""
        return self.of(parameter) == self.ranks.rank

    def is_cut(self, parameter: Tensor) -> bool:
        """Whether ranks have parts of it."""
        return self.spread.axis(parameter) is not None

    def place(self, parameter: nn.Parameter) -> Place:
        """Where it lies."""
        return Place(parameter.shape, parameter.dtype, self.spread.axis(parameter), self.of(parameter) or 0)


def _cost(stage: AffineStage) -> float:
    """Flops of an argmax: products with the metric, and of whole vectors a polar factor."""
    short, long = sorted((stage.outputs, stage.inputs))
    size = float(short * long)
    if stage.map.one_hot or stage.inputs == 1:
        return stage.groups * size
    metric = size * (2 * stage.inputs if stage.is_exact else 4 * stage.rank)
    polar = short**2 * (_POLAR * short + _APPLIED * long) if stage.map.is_dense else 0.0
    return stage.groups * (metric + polar)
