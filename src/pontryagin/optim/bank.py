"""Equal affine stages, maximized together: their running state lies stacked along the group axis."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.optim.affine_stage import AffineStage
from pontryagin.optim.growth import Spread, follow
from pontryagin.optim.metric import Diagonal, Factor, Metric
from pontryagin.optim.operator_step import operator_step
from pontryagin.optim.stage_step import argmax, normalized, remember

Move = tuple[Tensor, Tensor]
"""A parameter and the change that a whole step would add to it."""

_LARGEST = 1 << 20
"""Numbers of weights in a bank: beyond that nothing is saved by stacking, and the stacked gradients would take memory."""
_LEAST_UNIT = 0.1
_EARLY, _SELDOM = 20, 4
"""The scale of a polar step is renewed in each of the first steps, then in every fourth with the memory of four: it costs a
product with A_c and changes slowly."""


@dataclass(frozen=True)
class Member:
    """A stage with its trained weight and bias, the state of its weight, and the numbers of their param groups."""

    stage: AffineStage
    weight: nn.Parameter
    bias: nn.Parameter | None
    state: dict[str, Tensor]
    groups: tuple[int, int]

    @property
    def identity(self) -> Hashable:
        """Changes with the trained parameters and their groups."""
        return id(self.weight), id(self.bias), self.groups

    @property
    def kind(self) -> Hashable:
        """Equal for stages that can be maximized together."""
        stage, weight = self.stage, self.weight
        return (stage.outputs, stage.inputs, stage.rank, stage.captured.layer.one_hot, self.bias is None, self.groups,
                weight.dtype, weight.device, bool(self.state["by_operator"]))


def banks_of(members: Sequence[Member]) -> list["Bank"]:
    """Equal stages together, in the order of the first of each kind, large ones on their own."""
    kinds: dict[Hashable, list[list[Member]]] = {}
    for member in members:
        parts = kinds.setdefault(member.kind, [[]])
        if parts[-1] and sum(other.weight.numel() for other in parts[-1]) + member.weight.numel() > _LARGEST:
            parts.append([])
        parts[-1].append(member)
    return [Bank(part) for parts in kinds.values() for part in parts]


class Bank:
    """Members of one kind. What lasts stays in the state of each weight, as views of the stacked tensors."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        first = members[0]
        self._one_hot, self._scalar = first.stage.captured.layer.one_hot, first.stage.inputs == 1
        self._by_operator = bool(first.state["by_operator"])
        self._sizes = [member.stage.groups for member in members]
        for member in members:
            member.stage.begin(member.state, member.bias is not None)
        self._state = {name: self._stack(name) for name in self._fields(first.bias is not None)}
        self._metric: Metric | None = None

    def renew(self) -> None:
        """The moments have changed."""
        self._metric = None

    def follow(self, spreads: Mapping[AffineStage, Spread | None], groups: Sequence[dict[str, Any]]) -> None:
        """The states have been glanced at. rho^2 is scaled along: as dW^2 A_c for a G that grows as its inputs do."""
        found = [spreads.get(member.stage) for member in self.members]
        if self._one_hot or not any(found):
            return
        known, power = Factor.of(self._state), groups[self.members[0].groups[0]]["power"]
        factor = follow(known.trace, self._state["mean"], found, self._sizes, self.members[0].bias is not None)
        for member, part in zip(self.members, factor.split(self._sizes), strict=True):
            member.stage.grow(member.state, part)
        self._state["square"].mul_(factor.pow((1 if self._by_operator else 2) * (1 - power))[:, None])
        self.renew()

    def step(self, groups: Sequence[dict[str, Any]]) -> list[Move]:
        """The changes of all members' parameters; momentum and rho are updated."""
        own, of_bias = (groups[number] for number in self.members[0].groups)
        change, bias_change = self._direction(*self._gradients(), own)
        change = change.mul_(-own["lr"] * self._unit())
        moves: list[Move] = [(member.weight, member.stage.captured.layer.shaped(part))
                 for member, part in zip(self.members, change.split(self._sizes), strict=True)]
        if bias_change is not None:
            parts = (bias_change * -of_bias["lr"]).split(self._sizes)
            moves += [(member.bias, part.reshape(member.bias.shape))
                      for member, part in zip(self.members, parts, strict=True) if member.bias is not None]
        return moves

    def _direction(self, gradient: Tensor, bias_gradient: Tensor | None, group: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """What is subtracted from (W, b) for lr = 1: every map here is odd in the gradient, so its sign can wait."""
        state, metric, memory = self._state, self._known_metric(), self._memory(group)
        if self._by_operator:
            return operator_step(state, gradient, bias_gradient, metric, group["damping"], group["power"], memory)
        change, bias_change, square = argmax(gradient, bias_gradient, state["mean"], metric, group["damping"], group["power"])
        if memory is not None:
            remember(state, square, memory)
        return normalized(state, change, bias_change, group["momentum"])

    def _unit(self) -> Tensor | float:
        """What lr is relative to: 1, and for a table of embeddings, which sets the scale of its outputs alone, their root mean
        square, between 0.1 and 1. (group, 1, 1)."""
        if not self._one_hot:
            return 1.0
        tables = [member.weight.square().mean(dtype=self._state["velocity"].dtype) for member in self.members]
        return torch.stack(tables).sqrt().clamp(_LEAST_UNIT, 1.0).view(-1, 1, 1)

    def _memory(self, group: dict[str, Any]) -> float | None:
        """Of rho in this step; None where it stays as it is.

        An output can be silent for long, and a rho that has vanished must not meet its next gradient: with rho renewed in the
        same step, no output moves by more than (1 - memory)^-1/2 times lr. Polar steps are bounded by themselves.
        """
        if not self._by_operator or group["steps"] < _EARLY:
            return group["memory"]
        renewed = group["steps"] % _SELDOM == 0 or not self._state["square_weight"].all()
        return group["memory"] ** _SELDOM if renewed else None

    def _gradients(self) -> tuple[Tensor, Tensor | None]:
        """Of weights as matrices and of biases, (group, ...), stacked: copies."""
        dtype = self._state["velocity"].dtype
        matrices = [member.stage.captured.layer.matrix(member.weight.grad) for member in self.members]  # type: ignore[arg-type]
        gradient = torch.cat(matrices).to(dtype)
        if self.members[0].bias is None:
            return gradient, None
        shape = -1, self.members[0].stage.outputs
        found = [torch.zeros_like(member.bias) if member.bias.grad is None else member.bias.grad  # type: ignore[arg-type, union-attr]
                 for member in self.members]
        return gradient, torch.cat([bias.reshape(shape) for bias in found]).to(dtype)

    def _known_metric(self) -> Metric:
        if self._metric is None:
            if self._one_hot or self._scalar:
                self._metric = Diagonal(self._state["moment" if self._one_hot else "values"])
            else:
                self._metric = Factor.of(self._state)
        return self._metric

    def _fields(self, has_bias: bool) -> list[str]:
        metric = ["moment"] if self._one_hot else ["basis", "values", "tail"]
        names = ["mean", *metric, "velocity", "velocity_weight", "square", "square_weight"]
        return [*names, "bias_velocity"] if has_bias else names

    def _stack(self, name: str) -> Tensor:
        parts = [member.state[name] for member in self.members]
        if len(parts) == 1:
            return parts[0]
        stacked = torch.cat(parts)
        for member, view in zip(self.members, stacked.split(self._sizes), strict=True):
            member.state[name] = view
        return stacked
