"""The predicted costs of all changes of all stages, a few stages at a time so that memory stays bounded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pontryagin.affine import Change
from pontryagin.affine.precision import wide
from pontryagin.audit.gap import StageGradient
from pontryagin.audit.network import Network
from pontryagin.audit.outputs import by_sample, costs, curvature
from pontryagin.audit.sets import Projection
from pontryagin.audit.watch import Trial, Watch, output_changes, probe
from pontryagin.diagnostics.batches import Batch
from pontryagin.diagnostics.loss import MeanLoss
from pontryagin.problem import MatrixSet, ProblemError


@dataclass
class Prediction:
    """Of one stage. The lists hold one number a batch: its mean over samples.

    slope, curvature: d loss / dh and d^2 loss / dh^2 along h times the argmax's direction; slopes: the mean
    of |d Phi_i / dh|. change: |dW| / |W|. cost, first_order: by set. omitted: sets that do not fit, and why.
    """

    slope: float = 0.0
    slopes: float = 0.0
    curvature: float = 0.0
    change: dict[str, float] = field(default_factory=dict)
    cost: dict[str, list[float]] = field(default_factory=dict)
    first_order: dict[str, list[float]] = field(default_factory=dict)
    omitted: dict[str, str] = field(default_factory=dict)


Tried = tuple[Trial, Prediction]
"""What is tried on a stage, and what becomes known of it."""


def projected(network: Network, number: int, projection: Projection) -> Tensor:
    """The weight of a stage in a set, shaped as it is. ProblemError when it does not fit."""
    weight, rows = network.weight(number), network.rows(number)
    if isinstance(projection, MatrixSet):
        projection = projection.within(rows)
    projection.check(*rows.size)
    return rows.shaped(projection.project(rows.matrix(weight).to(wide(weight.dtype)))).to(weight.dtype)


def predictions(network: Network, loss: MeanLoss, batches: Sequence[Batch],
                gradients: Mapping[int, StageGradient], sets: Mapping[str, Projection], memory: int,
                advance: Callable[[int], None]) -> dict[int, Prediction]:
    """Of the stages in `gradients`. memory: bytes that changes may take at a time.

    advance: told every step of as many as there are stages times batches. A stage whose costates do not give
    its gradient, because its weights are used outside its module too, is done again by differences.
    """
    watch = probe(network, batches[0])
    found: dict[int, Prediction] = {}
    for tried in _in_groups(network, gradients, sets, memory):
        for batch in batches:
            _predict(network, loss, batch, tried, watch, memory)
            advance(len(tried))
        for trial, prediction in tried:
            total = gradients[trial.number].total
            if abs(prediction.slope + total) > 0.01 * total + 1e-4 * prediction.slopes:  # more than rounding
                again = _tried(network, trial.number, gradients[trial.number].direction, sets)
                for batch in batches:
                    _predict(network, loss, batch, [again], Watch(frozenset(), watch.sizes), memory)
                prediction = again[1]
            found[trial.number] = prediction
    return found


def _in_groups(network: Network, gradients: Mapping[int, StageGradient], sets: Mapping[str, Projection],
               memory: int) -> Iterator[list[Tried]]:
    """As many stages at a time as have changes that fit into memory, one at least."""
    group: list[Tried] = []
    held = 0
    for number, gradient in gradients.items():
        way = gradient.direction
        need = way.weight.numel() * way.weight.element_size() * (len(sets) + 1)
        if group and held + need > memory:
            yield group
            group, held = [], 0
        group.append(_tried(network, number, way, sets))
        held += need
    if group:
        yield group


def _tried(network: Network, number: int, way: Change, sets: Mapping[str, Projection]) -> Tried:
    leaf, bias, prediction, weights = network.weight(number), network.bias(number), Prediction(), []
    size = torch.linalg.vector_norm(leaf)
    for name, projection in sets.items() if leaf.ndim > 1 else ():
        try:
            weight = projected(network, number, projection)
        except ProblemError as error:
            prediction.omitted[name] = str(error)
            continue
        weights.append(weight)
        prediction.change[name] = (torch.linalg.vector_norm(weight - leaf) / size).nan_to_num(0.0).item()
        prediction.cost[name], prediction.first_order[name] = [], []
    direction = network.stages[number].map.shaped(way.weight)
    scale = (size / torch.linalg.vector_norm(direction)).nan_to_num(1.0, posinf=1.0).item() or 1.0
    if bias is not None:
        bias = None if way.bias is None else bias + scale * way.bias.reshape(bias.shape).to(bias.dtype)
    return Trial(number, (*weights, leaf + scale * direction.to(leaf.dtype)), bias, scale), prediction


def _predict(network: Network, loss: MeanLoss, batch: Batch, tried: list[Tried], watch: Watch,
             memory: int) -> None:
    """Adds the means over one batch, computed on parts of it that fit into memory."""
    # a change of z and its costate, of 8 bytes at most, for every set and the direction
    per_sample = 16 * sum(watch.sizes.get(trial.number, 0) * len(trial.weights) for trial, _ in tried)
    part = max(min(batch.samples, memory // max(per_sample, 1)), 1)
    for _, prediction in tried:
        for means in (*prediction.cost.values(), *prediction.first_order.values()):
            means.append(0.0)
    for first in range(0, batch.samples, part):
        some = batch.part(first, first + part)
        share = loss.counted(some.targets) / batch.counted
        if not share:  # all targets of the part are ignored
            continue
        outputs, gradient, moves = output_changes(network, loss, some, [trial for trial, _ in tried], watch)
        for (trial, prediction), (moved, linear) in zip(tried, moves, strict=True):
            slope, way = by_sample(gradient).to(linear.dtype), linear[:, -1] / trial.scale
            slopes, along = torch.einsum("nkf,nf->k", linear[:, :-1], slope).tolist(), (way * slope).sum(1)
            for name, cost, first_order in zip(prediction.cost, costs(loss, outputs, some.targets, moved),
                                               slopes, strict=True):
                prediction.cost[name][-1] += share * cost
                prediction.first_order[name][-1] += share * first_order
            prediction.slope += along.sum().item() * share * batch.weight
            prediction.slopes += along.abs().sum().item() * share * batch.weight
            prediction.curvature += curvature(loss, outputs, some.targets, way) * share * batch.weight
