"""Equal affine stages, maximized together: their running state lies stacked along the group axis."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine.argmax import argmax
from pontryagin.affine.metric import Diagonal, Factor, Metric
from pontryagin.affine.variances import MeanVariance, growth
from pontryagin.optim.affine_stage import RUNNING, AffineStage
from pontryagin.optim.fading import is_mild, unit
from pontryagin.optim.gradients import dense
from pontryagin.optim.polar_step import operator_step
from pontryagin.optim.reach import reach, within
from pontryagin.optim.row_step import nesterov, outputs_scale

Move = tuple[Tensor, Tensor]
"""A parameter and the change that a whole step would add to it."""

_LARGEST = 1 << 20
"""Numbers of weights in a bank: beyond that nothing is saved by stacking, and the stacked gradients would
take memory."""
_LEAST_UNIT = 0.1
_LARGE = {"velocity", "bias_velocity"}
"""Entries of the state that are put in the place of the old ones; the others are copied into them."""
_STEEP = 0.5
"""Beyond this power of the metric of tiny inputs the square of a change before it is scaled is no float32."""
_EARLY, _SELDOM = 20, 4
"""The scale of a polar step is renewed in each of the first steps, then in every fourth with the memory of
four: it costs a product with A_c and changes slowly."""


@dataclass(frozen=True)
class Member:
    """A stage with its trained weight and bias, the state of its weight, and the numbers of their param
    groups."""

    stage: AffineStage
    weight: nn.Parameter
    bias: nn.Parameter | None
    state: dict[str, Tensor]
    groups: tuple[int, int]

    @property
    def identity(self) -> Hashable:
        """Changes with the trained parameters, their states, groups and types."""
        return id(self.weight), id(self.bias), id(self.state), self.groups, self.weight.dtype, self.weight.device

    @property
    def kind(self) -> Hashable:
        """Equal for stages that can be maximized together."""
        stage, weight = self.stage, self.weight
        return (stage.outputs, stage.inputs, stage.rank, stage.captured.layer.one_hot, self.bias is None,
                self.groups, weight.dtype, weight.device, bool(self.state["by_operator"]))


def banks_of(members: Sequence[Member]) -> list["Bank"]:
    """Equal stages together, in the order of the first of each kind, large ones on their own."""
    kinds: dict[Hashable, list[list[Member]]] = {}
    for member in members:
        parts = kinds.setdefault(member.kind, [[]])
        if parts[-1] and sum(other.weight.numel() for other in parts[-1]) + member.weight.numel() > _LARGEST:
            parts.append([])
        parts[-1].append(member)
    return [Bank(part) for parts in kinds.values() for part in parts]


@dataclass
class Proposal:
    """A step of a bank that has not been taken: directions, stacked, and what it would change in the
    state."""

    bank: "Bank"
    change: Tensor
    bias_change: Tensor | None
    norm: Tensor
    new: dict[str, Tensor]

    def size(self) -> Tensor:
        """Finite where the directions are."""
        total = self.norm.sum()
        return total if self.bias_change is None else total + torch.linalg.vector_norm(self.bias_change)


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
        self._state: dict[str, Tensor] = {}
        for name in self._fields(first.bias is not None):
            self._state[name] = self._stack(name)
        self._metric: Metric | None = None
        self._reach: Tensor | None = None

    def renew(self) -> None:
        """The moments have changed."""
        self._metric = None

    def follow(self, spreads: Mapping[AffineStage, MeanVariance | None], groups: Sequence[dict[str, Any]]) -> None:
        """The states have been glanced at. rho^2 is scaled along: as dW^2 A_c for a G that grows as its
        inputs do."""
        found = [spreads.get(member.stage) for member in self.members]
        if self._one_hot or not any(found):
            return
        known, power = Factor.of(self._state), groups[self.members[0].groups[0]]["power"]
        factor = growth(known.trace, self._state["mean"], found, self._sizes,
                        self.members[0].bias is not None)
        for member, part in zip(self.members, factor.split(self._sizes), strict=True):
            member.stage.grow(member.state, part)
        scale = factor.pow((1 if self._by_operator else 2) * (1 - power))[:, None]
        for name in ("square",) if self._by_operator else ("square", "long_square"):
            self._state[name].mul_(scale)
        self.renew()

    def propose(self, groups: Sequence[dict[str, Any]], largest: Mapping[int, float],
                bounded: bool = True) -> Proposal:
        """The step of all members; nothing has been changed. largest: by the id of a parameter, the largest
        entry of its gradient. bounded: whether steps reach as far as weights allow (reach.py), and not
        wherever they lead."""
        own, metric, memory = groups[self.members[0].groups[0]], self._known_metric(), self._memory(groups)
        limit = self._limit(float(own["lr"]) if bounded and not self._one_hot else 0.0, own["steps"])
        sizes = [max(largest[id(member.weight)], largest.get(id(member.bias), 0.0))
                 for member in self.members]
        if self._by_operator:
            gradient, bias_gradient = self._gradients(None)
            return Proposal(self, *operator_step(self._state, gradient, bias_gradient, self._by_group(sizes),
                                                 metric, own["damping"], own["power"], memory, limit,
                                                 own["steps"] + 1))
        units = None if all(is_mild(size) for size in sizes) else [unit(size) for size in sizes]
        gradient, bias_gradient = self._gradients(None if units is None else [1 / each for each in units])
        change, bias_change, square = argmax(gradient, bias_gradient, self._state["mean"], metric,
                                             own["damping"], own["power"])
        assert memory is not None
        scale, new = outputs_scale(self._state, square, None if units is None else self._by_group(units),
                                   memory, own["steps"] + 1)
        rows = torch.linalg.vector_norm(change, dim=2, dtype=scale.dtype if own["power"] > _STEEP else None)
        norm = torch.linalg.vector_norm(rows * scale, dim=1).to(change.dtype)
        scale = scale.to(change.dtype) * within(norm, limit).unsqueeze(1)
        bias_change = None if bias_change is None else bias_change.mul_(scale)
        return Proposal(self, change.mul_(scale.unsqueeze(2)), bias_change, norm, new)

    def take(self, proposal: Proposal, groups: Sequence[dict[str, Any]]) -> list[Move]:
        """The changes of all members' parameters; momentum and rho are updated."""
        own, of_bias = (groups[number] for number in self.members[0].groups)
        change, bias_change = proposal.change, proposal.bias_change
        small = [name for name in proposal.new if name not in _LARGE]
        torch._foreach_copy_([self._state[name] for name in small], [proposal.new[name] for name in small])
        for name in proposal.new.keys() & _LARGE:
            self._state[name] = proposal.new[name]
            self._share(name)
        if not self._by_operator:
            change = nesterov(self._state["velocity"], change, own["momentum"])
            if bias_change is not None:
                bias_change = nesterov(self._state["bias_velocity"], bias_change, own["momentum"])
        change = change.mul_(-own["lr"] * self._unit())
        moves: list[Move] = [(member.weight, member.stage.captured.layer.shaped(part))
                             for member, part in zip(self.members, change.split(self._sizes), strict=True)]
        if bias_change is not None:
            parts = (bias_change * -of_bias["lr"]).split(self._sizes)
            moves += [(member.bias, part.reshape(member.bias.shape))
                      for member, part in zip(self.members, parts, strict=True) if member.bias is not None]
        return moves

    @property
    def names(self) -> str:
        """Of its stages."""
        return ", ".join(member.stage.name for member in self.members)

    def _limit(self, lr: float, steps: int) -> Tensor:
        """Of the norms of the members' changes before they are multiplied by lr, (group). Weights are
        measured in each of the
        first steps, then now and then: they change by no more than what is asked here."""
        if lr == 0:
            return self._state["mean"].new_full((sum(self._sizes),), torch.inf)
        if self._reach is None or steps < _EARLY or steps % _SELDOM == 0:
            weights = [member.stage.captured.layer.matrix(member.weight) for member in self.members]
            norms = torch.cat([torch.linalg.vector_norm(weight, dim=(1, 2)) for weight in weights])
            self._reach = reach(norms.to(self._state["velocity"].dtype), self.members[0].stage.outputs)
        return self._reach / lr

    def _unit(self) -> Tensor | float:
        """What lr is relative to: 1, and for a table of embeddings, which sets the scale of its outputs
        alone, their root mean square, between 0.1 and 1. (group, 1, 1)."""
        if not self._one_hot:
            return 1.0
        tables = [member.weight.square().mean(dtype=self._state["velocity"].dtype) for member in self.members]
        return torch.stack(tables).sqrt().clamp(_LEAST_UNIT, 1.0).view(-1, 1, 1)

    def _memory(self, groups: Sequence[dict[str, Any]]) -> float | None:
        """Of rho in this step; None where it stays as it is.

        An output can be silent for long, and a rho that has vanished must not meet its next gradient: with
        rho renewed in the same step, no output moves by more than (1 - memory)^-1/2 times lr. Polar steps are
        bounded by themselves.
        """
        group = groups[self.members[0].groups[0]]
        if not self._by_operator or group["steps"] < _EARLY:
            return group["memory"]
        renewed = group["steps"] % _SELDOM == 0 or not self._state["square_weight"].all()
        return group["memory"] ** _SELDOM if renewed else None

    def _by_group(self, values: Sequence[float]) -> Tensor:
        """A number of each member for all of its groups, in the precision of the squares of gradients."""
        spread = [value for value, size in zip(values, self._sizes, strict=True) for _ in range(size)]
        return torch.tensor(spread, dtype=self._state["square"].dtype, device=self._state["square"].device)

    def _gradients(self, factors: Sequence[float] | None) -> tuple[Tensor, Tensor | None]:
        """Of weights as matrices and of biases, (group, ...), stacked, each member's times its factor:
        copies."""
        dtype = self._state["velocity"].dtype
        matrices = [member.stage.captured.layer.matrix(dense(member.weight.grad))  # type: ignore[arg-type]
                    for member in self.members]
        gradient = self._stacked(matrices, factors).to(dtype)
        if self.members[0].bias is None:
            return gradient, None
        shape = -1, self.members[0].stage.outputs
        found = [_gradient_of(member) for member in self.members]
        return gradient, self._stacked([bias.reshape(shape) for bias in found], factors).to(dtype)

    def _stacked(self, parts: list[Tensor], factors: Sequence[float] | None) -> Tensor:
        if factors is None:
            return torch.cat(parts)
        if len(parts) == 1:
            return parts[0] * factors[0]
        return torch.cat(torch._foreach_mul(parts, list(factors)))

    def _known_metric(self) -> Metric:
        if self._metric is None:
            if self._one_hot or self._scalar:
                self._metric = Diagonal(self._state["moment" if self._one_hot else "values"])
            else:
                self._metric = Factor.of(self._state)
        return self._metric

    def _fields(self, has_bias: bool) -> list[str]:
        metric = ["moment"] if self._one_hot else ["basis", "values", "tail"]
        names = ["mean", *metric, *RUNNING, "velocity"]
        return [*names, "bias_velocity"] if has_bias else names

    def _stack(self, name: str) -> Tensor:
        parts = [member.state[name] for member in self.members]
        if len(parts) == 1:
            return parts[0]
        self._state[name] = torch.cat(parts)
        self._share(name)
        return self._state[name]

    def _share(self, name: str) -> None:
        """The members' entries are views of the bank's."""
        for member, view in zip(self.members, self._state[name].split(self._sizes), strict=True):
            member.state[name] = view


def _gradient_of(member: Member) -> Tensor:
    """Of the bias; 0 where it has none."""
    assert member.bias is not None
    return torch.zeros_like(member.bias) if member.bias.grad is None else dense(member.bias.grad)
