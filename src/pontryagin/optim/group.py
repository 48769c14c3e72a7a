"""Groups of equal stages, maximized together: what is large of them lies stacked along the group axis."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pontryagin.affine import Diagonal, Factor, MeanVariance, Scaled
from pontryagin.affine.argmax import centred, shift
from pontryagin.affine.metric import FactoredMoment, row_norm
from pontryagin.affine.variances import growth
from pontryagin.optim import compiled
from pontryagin.optim.certainty import exponent_for, is_polar
from pontryagin.optim.directions import EXPONENT, LEAST, QUARTER, after, lengths, levelled
from pontryagin.optim.fading import reach
from pontryagin.optim.gradients import dense
from pontryagin.optim.numbers import Numbers, of, sqrt
from pontryagin.optim.stage import FRESH, AffineStage
from pontryagin.optim.state import StageState
from pontryagin.optim.whitening import inverse_root, own_share, seen

Matrix = Float[Tensor, "group output input"]
Vector = Float[Tensor, "group output"]
Groups = Sequence[dict[str, Any]]
"""The optimizer's param groups."""
Rights = tuple[Tensor, Tensor | None]
"""What a group keeps of a gradient until C is to see it: (G - g s^T, g)."""

_LARGEST, _LARGEST_ON_DEVICE = 1 << 20, 1 << 24
"""Numbers of weights in a group: beyond that nothing is saved by stacking, and the stacked gradients would
take memory. A device that waits for launches saves more: stacked gradients of 64 MB at most."""
LEAST_UNIT = 0.1
"""Of a table of embeddings whose entries are smaller still, as torch's transformers begin them."""


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
    def is_polar(self) -> bool:
        """Whether its step is bounded in the operator norm."""
        return is_polar(self.state.rows.item(), self.stage.map.is_dense)

    @property
    def exponent(self) -> float:
        """That of its metric where its param group names none."""
        return exponent_for(self.state.rows.item(), self.stage.map.is_dense)

    @property
    def has_directions(self) -> bool:
        """Whether rows are whitened by what gradients are seen to be along directions (directions.py)."""
        return not self.is_polar and self.stage.has_directions

    def is_noise(self, exponent: float) -> bool:
        """The same, in a metric of this exponent."""
        return exponent == EXPONENT and self.has_directions

    @property
    def settings(self) -> Hashable:
        """Equal for stages whose lengths are found together."""
        return self.groups, self.weight.dtype, self.weight.device, self.is_polar, self.exponent

    @property
    def kind(self) -> Hashable:
        """Equal for stages that can be maximized together."""
        stage = self.stage
        return (stage.outputs, stage.inputs, stage.rank, stage.map.one_hot, self.bias is None,
                self.state.has_units, self.settings)

    def weight_gradient(self) -> Tensor:
        """Of the whole weight; may be .grad itself."""
        return dense(self.weight.grad)  # type: ignore[arg-type]

    def bias_gradient(self) -> Tensor:
        """0 where it has none."""
        assert self.bias is not None
        return torch.zeros_like(self.bias) if self.bias.grad is None else dense(self.bias.grad)


def grouped(stages: Sequence[TrainedStage],
            make: "Callable[[Sequence[TrainedStage]], StageGroup] | None" = None) -> list["StageGroup"]:
    """Equal stages together, in the order of the first of each kind, large ones on their own. make: a group
    of them."""
    kinds: dict[Hashable, list[list[TrainedStage]]] = {}
    for one in stages:
        parts = kinds.setdefault(one.kind, [[]])
        largest = _LARGEST if one.weight.device.type == "cpu" else _LARGEST_ON_DEVICE
        if parts[-1] and sum(other.weight.numel() for other in parts[-1]) + one.weight.numel() > largest:
            parts.append([])
        parts[-1].append(one)
    return [(make or StageGroup)(part) for parts in kinds.values() for part in parts]


class Answer(NamedTuple):
    """The argmax of a group, in the metric and whitened. square: what it changes in each output, mean square,
    without mean_change; norm: of each row of the change. mean_change: dW s + db, and shift: dW s, where
    biases are apart. share: of each row that is taken (own_share), None: all of it."""

    change: Matrix
    square: Numbers
    norm: Numbers
    mean_change: Vector | None
    shift: Vector | None
    share: Numbers | None


class StageGroup:
    """Stages of one kind. What lasts stays in the state of each weight, as views of the stacked tensors.

    sizes: how many independent copies of the map each stage has; count: all of them.
    """

    def __init__(self, stages: Sequence[TrainedStage]) -> None:
        self.stages, self.first = stages, stages[0]
        self.map, self.sizes = self.first.stage.map, [one.stage.groups for one in stages]
        self.count = sum(self.sizes)
        for one in stages:
            one.stage.begin(one.state, one.bias is not None)
        self.has_units = self.first.state.has_units
        metric = ["moment"] if self.map.one_hot else ["basis", "values", "tail"]
        metric += ["input_unit"] if self.has_units else []
        outputs = [*StageState.OF_OUTPUTS] if self.first.stage.is_whitened else []
        outputs += ["along_inputs"] if self.first.stage.has_directions else []
        self._state = StageState({name: self._stacked(name)
                                  for name in ["mean", *metric, *outputs, "velocity"]})
        self._metric: FactoredMoment | None = None
        self._root: Tensor | None = None  # of C, inverse
        self._learned: Tensor | None = None  # c after a step that has not been taken
        self._product: tuple[float, Tensor] | None = None  # damping, and `product` of it
        self.is_unseen = self.first.stage.is_whitened and self._lacks_outputs()
        self._is_undirected = self.first.has_directions and self._lacks_directions()
        self.lengths = [self.first.stage.outputs] * self.count
        self.has_bias_apart = self.first.bias is not None

    def lend(self, velocity: Matrix, bias_velocity: Vector | None) -> None:
        """Momentum lies in these from now on."""
        self._state.velocity = velocity.copy_(self._state.velocity)
        self._share("velocity")
        if bias_velocity is not None:
            for one, part in zip(self.stages, bias_velocity.split(self.sizes), strict=True):
                one.state.bias_velocity = part.copy_(one.state.bias_velocity)

    def renew(self) -> None:
        """The moments have changed."""
        self._metric = self._product = None

    def follow(self, seen: Mapping[AffineStage, MeanVariance | None]) -> Tensor | None:
        """The states have been probed: mean and second moment grow along; by what factor, (group)."""
        found = [seen.get(one.stage) for one in self.stages]
        if self.map.one_hot or not any(found):
            return None
        factor = growth(self._factor().trace, self.mean, found, self.sizes, self.first.bias is not None)
        self._state.values.mul_(factor.unsqueeze(1))
        self._state.tail.mul_(factor)
        if self.first.stage.is_exact:
            torch._foreach_mul_([one.state.moment for one in self.stages],
                                factor.view(-1, 1, 1).split(self.sizes))
        self.renew()
        return factor

    @property
    def mean(self) -> Float[Tensor, "group input"]:
        """Of the inputs."""
        return self._state.mean

    @property
    def velocity(self) -> Matrix:
        """Momentum."""
        return self._state.velocity

    def replace_velocity(self, velocity: Matrix) -> None:
        """By a new one."""
        self._state.velocity = velocity
        self._share("velocity")

    @property
    def metric(self) -> FactoredMoment:
        """Of the inputs; with the powers that have been asked for, until the moments change."""
        if self._metric is None:
            single = self.first.stage.inputs == 1
            self._metric = (Diagonal(self._state.moment) if self.map.one_hot else
                            Diagonal(self._state.values) if single else
                            Scaled(self._factor(), self._state.input_unit.unsqueeze(1)) if self.has_units else
                            self._factor())
        return self._metric

    @property
    def root(self) -> Float[Tensor, "group output output"] | None:
        """The inverse root of C, what steps do to the outputs together (whitening.py); None: 1."""
        if self._root is None and self.first.stage.is_whitened:
            self._root = inverse_root(self._state.output_moment)
        return self._root

    def input_lengths(self, damping: float) -> Float[Tensor, "group input"]:
        """What is taken along each direction (directions.py), before A_c has a say."""
        own = self._state.along_inputs if self._learned is None else self._learned
        rounding = (torch.finfo(self.mean.dtype).eps * own.shape[1])**2
        return lengths(own, damping, EXPONENT if self.first.stage.is_exact else QUARTER, rounding)

    def product(self, damping: float) -> Float[Tensor, "group input input"]:
        """Q (c + delta)^(-1/2) Q^T a^(-1/2), where Q is square."""
        turn = self._factored.turn
        variance = self._factored.mean_diagonal.to(self._state.along_inputs.dtype).clamp_min(LEAST)
        own = self.input_lengths(damping) * variance.rsqrt()[:, None]
        return (turn * own.unsqueeze(1).to(turn.dtype)) @ turn.mT

    @property
    def _factored(self) -> Factor | Scaled:
        assert isinstance(self.metric, Factor | Scaled)
        return self.metric

    def learns(self, exponent: float, looked: bool) -> bool:
        """Whether `learn` is to be asked."""
        return self.first.is_noise(exponent) and (looked or self._is_undirected)

    def learn(self, gradient: Matrix, mean_change: Vector | None, units: Tensor | None = None) -> None:
        """What this gradient has along directions, should its step be taken. units: what G and g of each
        matrix are divided by; None: 1."""
        right = gradient if mean_change is None else centred(gradient, mean_change, self.mean)
        right = right if self.root is None else torch.bmm(self.root, right)
        turned = torch.bmm(right, self._factored.turn) if self.first.stage.is_exact else right
        found = after(self._state.along_inputs, turned, units)
        if self.first.stage.is_exact:
            found = levelled(found, self._state.values)
        self._learned, self._product = found, None

    def keep_learned(self) -> None:
        """The step has been taken."""
        if self._learned is not None:
            self._state.along_inputs.copy_(self._learned)
            self._learned, self._is_undirected = None, self._is_undirected and self._lacks_directions()

    def answer(self, gradient: Matrix, mean_change: Vector | None, damping: float, exponent: float) -> Answer:
        """The argmax for G, g."""
        right, root, share = gradient, self.root, None
        if mean_change is not None:
            right = centred(gradient, mean_change, self.mean)
        if root is not None:
            own = _rows(right, mean_change)
            right = torch.bmm(root, right)
            mean_change = None if mean_change is None else torch.bmm(
                root, mean_change.unsqueeze(2)).squeeze(2)
            share = own_share(own, _rows(right, mean_change), of(root.diagonal(dim1=1, dim2=2)))
        if self.first.is_noise(exponent):
            return self._answer_to_noise(right, mean_change, damping, share)
        found = self.metric.measured_solve(right, damping, exponent)
        return Answer(*found, mean_change, None if mean_change is None else shift(found[0], self.mean), share)

    def _answer_to_noise(self, right: Matrix, mean_change: Vector | None, damping: float,
                         share: Numbers | None) -> Answer:
        metric, own = self._factored, self.input_lengths(damping).to(right.dtype)
        right = right * metric.power(damping, QUARTER).is_known.unsqueeze(2)
        if self.first.stage.is_exact:
            if self._product is None or self._product[0] != damping:
                self._product = damping, self.product(damping)
            change = torch.bmm(right, self._product[1])
            moved = change * metric.unit if isinstance(metric, Scaled) else change
            square = torch.linalg.vector_norm(moved, dim=2, dtype=self.first.state.square.dtype).square()
            square = square * metric.mean_diagonal[:, None]
        else:
            change = metric.solve(right * own.unsqueeze(1), damping, QUARTER)
            square = metric.squared_change(change)
        return Answer(change, square, row_norm(change, EXPONENT), mean_change,
                      None if mean_change is None else shift(change, self.mean), share)

    def rights(self, gradient: Matrix, mean_change: Vector | None, refresh: bool) -> Rights | None:
        """What C is to take in of this batch, in a refresh and where it has seen no gradient yet."""
        if not self.first.stage.is_whitened or not (refresh or self.is_unseen):
            return None
        right = gradient if mean_change is None else centred(gradient, mean_change, self.mean)
        return right, mean_change

    def see_outputs(self, rights: Rights, damping: float, exponent: float) -> None:
        """C takes in this batch."""
        found, is_seen = seen(*rights, self.metric, damping, exponent)
        self._state.output_refreshes.add_(is_seen)
        weight = self._state.output_refreshes.clamp_min(1).reciprocal().clamp_min(FRESH).mul_(is_seen)
        self._state.output_moment.lerp_(found, weight[:, None, None])
        self._root, self.is_unseen = None, self.is_unseen and self._lacks_outputs()

    def _lacks_directions(self) -> bool:
        return not self._state.along_inputs.any(1).all()

    def _lacks_outputs(self) -> bool:
        return not self._state.output_refreshes.all()

    def gradient(self, factors: Sequence[float] | None = None) -> Matrix:
        """Of weights as matrices, stacked, each stage's times its factor; may be .grad itself where there is
        nothing to be done."""
        matrices = [one.stage.map.matrix(one.weight_gradient()) for one in self.stages]
        if factors is not None:
            matrices = list(torch._foreach_mul(matrices, list(factors)))
        return (matrices[0] if len(matrices) == 1 else torch.cat(matrices)).to(self.velocity.dtype)

    def whole_weights(self) -> list[Tensor] | None:
        """Of all stages; None where they lie elsewhere."""
        return [one.weight.detach() for one in self.stages]

    def reach(self) -> Float[Tensor, " group"]:
        """The largest norm that a change may have; tables of embeddings may go anywhere."""
        if self.map.one_hot:
            return self.mean.new_full((self.count,), torch.inf)
        weights = [one.weight.detach() for one in self.stages]
        if self.count == len(weights):
            known = compiled.norms(weights)
            norms = self.mean.new_tensor(known) if known else torch.stack(torch._foreach_norm(weights))
        else:
            norms = torch.cat([torch.linalg.vector_norm(one.stage.map.matrix(weight), dim=(1, 2))
                               for one, weight in zip(self.stages, weights, strict=True)])
        return reach(norms.to(self.velocity.dtype), self.first.stage.outputs)

    def unit(self) -> Tensor | None:
        """What lr is relative to, (group, 1, 1), where it is not 1: a table of embeddings sets the scale of
        its outputs alone, and moves in units of their root mean square, between 0.1 and 1."""
        if not self.map.one_hot:
            return None
        tables = [one.weight.square().mean(dtype=self.velocity.dtype) for one in self.stages]
        return torch.stack(tables).sqrt().clamp(LEAST_UNIT, 1.0).view(-1, 1, 1)

    def moves(self, change: Matrix) -> tuple[Sequence[nn.Parameter], Sequence[Tensor]]:
        """Weights and their directions."""
        unit = self.unit()
        parts = (change if unit is None else change * unit).split_with_sizes(self.sizes)
        return ([one.weight for one in self.stages],
                [one.stage.map.shaped(part) for one, part in zip(self.stages, parts, strict=True)])

    def extra(self, change: Matrix) -> list[Numbers]:
        """What must be finite beside norms and biases."""
        return []

    def _factor(self) -> Factor:
        return Factor(self._state.basis, self._state.values, self._state.tail)

    def _stacked(self, name: str) -> Tensor:
        parts = [one.state.entries[name] for one in self.stages]
        if len(parts) == 1:
            return parts[0]
        joint = torch.cat(parts)
        for one, view in zip(self.stages, joint.split(self.sizes), strict=True):
            one.state.entries[name] = view
        return joint

    def _share(self, name: str) -> None:
        """The stages' entries are views of the group's."""
        for one, view in zip(self.stages, self._state.entries[name].split(self.sizes), strict=True):
            one.state.entries[name] = view


def _rows(right: Matrix, mean_change: Vector | None) -> Numbers:
    """The length of each row, (group, output)."""
    found = of(torch.linalg.vector_norm(right, dim=2))
    return found if mean_change is None else sqrt(found * found + of(mean_change)**2)
