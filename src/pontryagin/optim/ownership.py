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
    if stage.map.one_hot or stage.inputs == 1:
        return float(stage.groups * stage.outputs * stage.inputs)
    return stage.groups * argmax_flops(stage.outputs, stage.inputs, stage.inputs if stage.is_exact
                                       else 2 * stage.rank, stage.map.is_dense)


def argmax_flops(outputs: int, inputs: int, directions: int, is_dense: bool = True) -> float:
    """Of an argmax: products with a metric of so many directions, and of whole vectors a polar factor."""
    short, long = sorted((outputs, inputs))
    polar = short**2 * (_POLAR * short + _APPLIED * long) if is_dense else 0.0
    return 2.0 * short * long * directions + polar
