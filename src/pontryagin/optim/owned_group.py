"""Stages whose parameters may lie in parts on other ranks, and groups of them, as their owner sees them in a
step."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pontryagin.optim.fading import reach
from pontryagin.optim.group import LEAST_UNIT, StageGroup, TrainedStage
from pontryagin.trajectory.local import local_part


@dataclass
class Held:
    """What an owner has of its parameters for the length of a step, by their ids: whole gradients, and the
    squared norms of weights, (group)."""

    gradients: dict[int, Tensor] = field(default_factory=dict)
    squares: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnedStage(TrainedStage):
    """A stage whose parameters may lie in parts elsewhere."""

    held: Held

    def weight_gradient(self) -> Tensor:
        """As it has been brought."""
        return self.held.gradients[id(self.weight)]

    def bias_gradient(self) -> Tensor:
        """0 where it has none."""
        assert self.bias is not None
        found = self.held.gradients.get(id(self.bias))
        return local_part(self.bias).new_zeros(self.bias.shape) if found is None else found


class OwnedGroup(StageGroup):
    """Equal stages whose weights may lie in parts elsewhere: their norms are known, not they."""

    def whole_weights(self) -> None:
        """Their norms are what is known."""
        return

    def reach(self) -> Tensor:
        """Of the norms that have been brought."""
        if self.map.one_hot:
            return super().reach()
        norms = torch.cat([_held(one).squares[id(one.weight)] for one in self.stages]).sqrt()
        return reach(norms.to(self.velocity.dtype), self.first.stage.outputs)

    def unit(self) -> Tensor | None:
        """The same."""
        if not self.map.one_hot:
            return None
        tables = [_held(one).squares[id(one.weight)].sum() / one.weight.numel() for one in self.stages]
        return torch.stack(tables).to(self.velocity.dtype).sqrt().clamp(LEAST_UNIT, 1.0).view(-1, 1, 1)


def _held(one: TrainedStage) -> Held:
    assert isinstance(one, OwnedStage)
    return one.held
