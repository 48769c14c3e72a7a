"""Groups of equal stages, maximized together: their running state lies stacked along the group axis."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine import Diagonal, Factor, MeanVariance, argmax
from pontryagin.affine.metric import FactoredMoment
from pontryagin.affine.variances import growth
from pontryagin.optim.fading import is_mild, reach, unit, within
from pontryagin.optim.gradients import dense
from pontryagin.optim.polar_step import polar_step
from pontryagin.optim.row_step import nesterov, outputs_scale
from pontryagin.optim.stage import AffineStage
from pontryagin.optim.state import StageState

Move = tuple[Tensor, Tensor]
"""A parameter and the change that a whole step would add to it."""
Groups = Sequence[dict[str, Any]]
"""The optimizer's param groups."""

_LARGEST, _LARGEST_ON_DEVICE = 1 << 20, 1 << 24
"""Numbers of weights in a group: beyond that nothing is saved by stacking, and the stacked gradients would
take memory. A device that waits for launches saves more: stacked gradients of 64 MB at most."""
_LEAST_UNIT = 0.1
"""Of a table of embeddings whose entries are smaller still, as torch's transformers begin them."""
_LARGE = {"velocity", "bias_velocity"}
"""Entries of the state that are put in the place of the old ones; the others are copied into them."""
_STEEP = 0.5
"""Beyond this power of the metric of tiny inputs the square of a change before it is scaled is no float32."""
_EARLY, _SELDOM = 20, 4
"""The scale of a polar step is renewed in each of the first steps, then in every fourth with the memory of
four: it costs a product with A_c and changes slowly."""


@dataclass(frozen=True)
class TrainedStage:
    """A stage with its trained weight and bias, the state of its weight, and the numbers of their param
    groups."""

    stage: AffineStage
    weight: nn.Parameter
    bias: nn.Parameter | None
    state: StageState
    groups: tuple[int, int]

    @property
    def identity(self) -> Hashable:
        """Changes with the trained parameters, their states, groups and types."""
        return (id(self.weight), id(self.bias), id(self.state.entries), self.groups, self.weight.dtype,
                self.weight.device)

    @property
    def kind(self) -> Hashable:
        """Equal for stages that can be maximized together."""
        stage, weight = self.stage, self.weight
        return (stage.outputs, stage.inputs, stage.rank, stage.map.one_hot, self.bias is None, self.groups,
                weight.dtype, weight.device, bool(self.state.polar))


def grouped(stages: Sequence[TrainedStage]) -> list["StageGroup"]:
    """Equal stages together, in the order of the first of each kind, large ones on their own."""
    kinds: dict[Hashable, list[list[TrainedStage]]] = {}
    for one in stages:
        parts = kinds.setdefault(one.kind, [[]])
        largest = _LARGEST if one.weight.device.type == "cpu" else _LARGEST_ON_DEVICE
        if parts[-1] and sum(other.weight.numel() for other in parts[-1]) + one.weight.numel() > largest:
            parts.append([])
        parts[-1].append(one)
    return [StageGroup(part) for parts in kinds.values() for part in parts]


@dataclass
class Proposal:
    """A step of a group that has not been taken: directions, stacked, and what it would change in the
    state."""

    group: "StageGroup"
    change: Tensor
    bias_change: Tensor | None
    norm: Tensor
    new: StageState

    def size(self) -> Tensor:
        """Finite where the directions are."""
        total = self.norm.sum()
        return total if self.bias_change is None else total + torch.linalg.vector_norm(self.bias_change)


class StageGroup:
    """Stages of one kind. What lasts stays in the state of each weight, as views of the stacked tensors."""

    def __init__(self, stages: Sequence[TrainedStage]) -> None:
        self.stages, self.first = stages, stages[0]
        self._map, self._polar = self.first.stage.map, bool(self.first.state.polar)
        self._sizes = [one.stage.groups for one in stages]
        for one in stages:
            one.stage.begin(one.state, one.bias is not None)
        self._state = StageState({})
        for name in self._fields():
            self._state.entries[name] = self._stack(name)
        self._metric: FactoredMoment | None = None
        self._reach: Tensor | None = None
        self._is_weighted = False

    def renew(self) -> None:
        """The moments have changed."""
        self._metric = None

    def follow(self, seen: Mapping[AffineStage, MeanVariance | None], groups: Groups) -> None:
        """The states have been probed. rho^2 is scaled along: as dW^2 A_c for a G that grows as its inputs
        do."""
        found = [seen.get(one.stage) for one in self.stages]
        if self._map.one_hot or not any(found):
            return
        known, exponent = self._factor(), groups[self.first.groups[0]]["exponent"]
        factor = growth(known.trace, self._state.mean, found, self._sizes, self.first.bias is not None)
        for one, part in zip(self.stages, factor.split(self._sizes), strict=True):
            one.stage.grow(one.state, part)
        squares = factor.pow((1 if self._polar else 2) * (1 - exponent))[:, None]
        self._state.square.mul_(squares)
        if not self._polar:
            self._state.long_square.mul_(squares)
        self.renew()

    def propose(self, groups: Groups, largest: Mapping[int, float], bounded: bool = True) -> Proposal:
        """The step of all stages; nothing has been changed. largest: by the id of a parameter, the largest
        entry of its gradient. bounded: whether steps reach as far as weights allow, and not wherever they
        lead."""
        own, metric, rho_decay = groups[self.first.groups[0]], self._known_metric(), self._rho_decay(groups)
        limit = self._limit(float(own["lr"]) if bounded and not self._map.one_hot else 0.0, own["steps"])
        sizes = [max(largest[id(one.weight)], largest.get(id(one.bias), 0.0)) for one in self.stages]
        if self._polar:
            gradient, bias_gradient = self._gradients(None)
            return Proposal(self,
                            *polar_step(self._state, gradient, bias_gradient, self._by_group(sizes), metric,
                                              own["damping"], own["exponent"], rho_decay, limit,
                                        own["steps"] + 1))
        units = None if all(is_mild(size) for size in sizes) else [unit(size) for size in sizes]
        gradient, bias_gradient = self._gradients(None if units is None else [1 / each for each in units])
        change, bias_change, square = argmax(gradient, bias_gradient, self._state.mean, metric,
                                             own["damping"], own["exponent"])
        assert rho_decay is not None
        scale, new = outputs_scale(self._state, square, None if units is None else self._by_group(units),
                                   rho_decay, own["steps"] + 1)
        steep = own["exponent"] > _STEEP
        rows = torch.linalg.vector_norm(change, dim=2, dtype=scale.dtype if steep else None)
        norm = torch.linalg.vector_norm(rows * scale, dim=1).to(change.dtype)
        scale = scale.to(change.dtype) * within(norm, limit).unsqueeze(1)
        bias_change = None if bias_change is None else bias_change.mul_(scale)
        return Proposal(self, change.mul_(scale.unsqueeze(2)), bias_change, norm, new)

    def take(self, proposal: Proposal, groups: Groups) -> list[Move]:
        """The changes of all parameters; momentum and rho are updated."""
        own, of_bias = (groups[number] for number in self.first.groups)
        change, bias_change, new = proposal.change, proposal.bias_change, proposal.new.entries
        small = [name for name in new if name not in _LARGE]
        torch._foreach_copy_([self._state.entries[name] for name in small], [new[name] for name in small])
        for name in new.keys() & _LARGE:
            self._state.entries[name] = new[name]
            self._share(name)
        if not self._polar:
            change = nesterov(self._state.velocity, change, own["momentum"])
            if bias_change is not None:
                bias_change = nesterov(self._state.bias_velocity, bias_change, own["momentum"])
        change = change.mul_(-own["lr"] * self._unit())
        moves: list[Move] = [(one.weight, one.stage.map.shaped(part))
                             for one, part in zip(self.stages, change.split(self._sizes), strict=True)]
        if bias_change is not None:
            parts = (bias_change * -of_bias["lr"]).split(self._sizes)
            moves += [(one.bias, part.reshape(one.bias.shape))
                      for one, part in zip(self.stages, parts, strict=True) if one.bias is not None]
        return moves

    @property
    def names(self) -> str:
        """Of its stages."""
        return ", ".join(one.stage.name for one in self.stages)

    def _limit(self, lr: float, steps: int) -> Tensor:
        """Of the norms of the changes before they are multiplied by lr, (group). Weights are measured in each
        of
        the first steps, then now and then: they change by no more than what is asked here."""
        if lr == 0:
            return self._state.mean.new_full((sum(self._sizes),), torch.inf)
        if self._reach is None or steps < _EARLY or steps % _SELDOM == 0:
            weights = [one.stage.map.matrix(one.weight) for one in self.stages]
            norms = torch.cat([torch.linalg.vector_norm(weight, dim=(1, 2)) for weight in weights])
            self._reach = reach(norms.to(self._state.velocity.dtype), self.first.stage.outputs)
        return self._reach / lr

    def _unit(self) -> Tensor | float:
        """What lr is relative to: 1, and for a table of embeddings, which sets the scale of its outputs
        alone, their root mean square, between 0.1 and 1. (group, 1, 1)."""
        if not self._map.one_hot:
            return 1.0
        tables = [one.weight.square().mean(dtype=self._state.velocity.dtype) for one in self.stages]
        return torch.stack(tables).sqrt().clamp(_LEAST_UNIT, 1.0).view(-1, 1, 1)

    def _rho_decay(self, groups: Groups) -> float | None:
        """Of rho in this step; None where it stays as it is.

        An output can be silent for long, and a rho that has vanished must not meet its next gradient: with
        rho renewed in the same step, no output moves by more than (1 - rho_decay)^-1/2 times lr. Polar steps
        are bounded by themselves.
        """
        own = groups[self.first.groups[0]]
        if not self._polar or own["steps"] < _EARLY:
            return own["rho_decay"]
        if not self._is_weighted:  # once all have had a gradient they stay so
            self._is_weighted = bool(self._state.square_weight.all())
        renewed = own["steps"] % _SELDOM == 0 or not self._is_weighted
        return own["rho_decay"] ** _SELDOM if renewed else None

    def _by_group(self, values: Sequence[float]) -> Tensor:
        """A number of each stage for all of its groups, in the precision of the squares of gradients."""
        each = [value for value, size in zip(values, self._sizes, strict=True) for _ in range(size)]
        return torch.tensor(each, dtype=self._state.square.dtype).to(self._state.square.device,
                                                                     non_blocking=True)

    def _gradients(self, factors: Sequence[float] | None) -> tuple[Tensor, Tensor | None]:
        """Of weights as matrices and of biases, (group, ...), stacked, each stage's times its factor:
        copies."""
        dtype = self._state.velocity.dtype
        matrices = [one.stage.map.matrix(dense(one.weight.grad))  # type: ignore[arg-type]
                    for one in self.stages]
        gradient = _stacked(matrices, factors).to(dtype)
        if self.first.bias is None:
            return gradient, None
        biases = [_gradient_of(one).reshape(-1, self.first.stage.outputs) for one in self.stages]
        return gradient, _stacked(biases, factors).to(dtype)

    def _factor(self) -> Factor:
        return Factor(self._state.basis, self._state.values, self._state.tail)

    def _known_metric(self) -> FactoredMoment:
        if self._metric is None:
            single = self.first.stage.inputs == 1
            self._metric = (Diagonal(self._state.moment) if self._map.one_hot else
                            Diagonal(self._state.values) if single else self._factor())
        return self._metric

    def _fields(self) -> list[str]:
        metric = ["moment"] if self._map.one_hot else ["basis", "values", "tail"]
        names = ["mean", *metric, *StageState.RUNNING, "velocity"]
        return names if self.first.bias is None else [*names, "bias_velocity"]

    def _stack(self, name: str) -> Tensor:
        parts = [one.state.entries[name] for one in self.stages]
        if len(parts) == 1:
            return parts[0]
        self._state.entries[name] = torch.cat(parts)
        self._share(name)
        return self._state.entries[name]

    def _share(self, name: str) -> None:
        """The stages' entries are views of the group's."""
        for one, view in zip(self.stages, self._state.entries[name].split(self._sizes), strict=True):
            one.state.entries[name] = view


def _stacked(parts: list[Tensor], factors: Sequence[float] | None) -> Tensor:
    if factors is None:
        return torch.cat(parts)
    return parts[0] * factors[0] if len(parts) == 1 else torch.cat(torch._foreach_mul(parts, list(factors)))


def _gradient_of(one: TrainedStage) -> Tensor:
    """Of the bias; 0 where it has none."""
    assert one.bias is not None
    return torch.zeros_like(one.bias) if one.bias.grad is None else dense(one.bias.grad)
