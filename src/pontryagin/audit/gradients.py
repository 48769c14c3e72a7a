"""Two passes over the batches: Gram matrices and the mean gradient of every stage, then its spread over
batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pontryagin.audit.gap import Change, across_batches, argmax_direction, own_gain, squared_state_change
from pontryagin.audit.gram import Gram, GramRows
from pontryagin.audit.network import Call, Network
from pontryagin.diagnostics.batches import Batch
from pontryagin.optim.precision import wide
from pontryagin.problem import NonFiniteError

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class StageGradient:
    """What both passes find about a stage.

    direction: (dW, db) of the argmax for rho = 1. square: mean |dW x + db|^2 of it, per row. total: Q(G, G)
    of the mean gradient;
    own, cross: of the batches, with themselves and with the mean. costate: mean over samples of |u|^2, None
    if not watched.
    """

    gram: Gram
    direction: Change
    square: float
    total: float
    costate: float | None
    own: list[float] = field(default_factory=list)
    cross: list[float] = field(default_factory=list)

    def gain(self, weights: Sequence[float]) -> tuple[float, float]:
        """Q(E G, E G) without bias, and its standard error."""
        return across_batches(self.total, self.own, self.cross, weights)


def stage_gradients(network: Network, loss: Loss, batches: Sequence[Batch], damping: float,
                    advance: Callable[[], None]) -> tuple[dict[int, StageGradient], list[float]]:
    """Of every stage that the batches reach, by number; and the loss of every batch. NonFiniteError for a
    loss or gradient."""
    means, grams, costates, losses = _first_pass(network, loss, batches, advance)
    found = {}
    for number in sorted(means):
        gram = grams[number].gram(damping) if number in grams else None
        if gram is None:  # its module was not called
            continue
        gradient, squares = means.pop(number), costates.get(number)
        direction = argmax_direction(gradient, gram)
        found[number] = StageGradient(gram, direction, squared_state_change(direction, gradient.bias, gram),
                                      gradient.dot(direction), squares)
    for batch in batches:
        outputs, _ = network.record(batch.inputs, batch.draw)
        for number, gradient in _gradients(network, loss(outputs, batch.targets), []):
            if number in found:
                found[number].own.append(own_gain(gradient, found[number].gram))
                found[number].cross.append(gradient.dot(found[number].direction))
        advance()
    return found, losses


def _first_pass(network: Network, loss: Loss, batches: Sequence[Batch], advance: Callable[[], None]
                ) -> tuple[dict[int, Change], dict[int, GramRows], dict[int, float], list[float]]:
    means: dict[int, Change] = {}
    grams: dict[int, GramRows] = {}
    costates: dict[int, float] = {}
    losses = []
    for place, batch in enumerate(batches):
        outputs, calls = network.record(batch.inputs, batch.draw)
        for call in calls:
            if call.inputs is not None:
                stage = network.stages[call.stage]
                grams.setdefault(call.stage,
                                 GramRows(stage.layer, stage.weight, len(batches))).add(call.inputs)
        value = loss(outputs, batch.targets)
        losses.append(value.item())
        if not value.isfinite():
            raise NonFiniteError(f"the loss of batch {place} is {losses[-1]}: look at this batch or the "
                                 "weights")
        watched = [call for call in calls if call.output is not None]
        for number, gradient in _gradients(network, value, watched, costates, batch):
            if not (gradient.weight.isfinite().all()
                    and (gradient.bias is None or gradient.bias.isfinite().all())):
                raise NonFiniteError(f"the gradient of {network.stages[number].name} in batch {place} is not "
                                     "finite")
            _add(means, number, gradient, batch.weight)
        advance()
    return means, grams, costates, losses


def _gradients(network: Network, value: Tensor, watched: Sequence[Call],
               costates: dict[int, float] | None = None,
               batch: Batch | None = None) -> list[tuple[int, Change]]:
    """G and g of every stage: minus the gradients of the mean loss. Adds up the squared costates of the calls
    watched."""
    names = list(dict.fromkeys(name for name in (*network.weights, *network.biases) if name is not None))
    targets = [network.leaves[name]
               for name in names] + [call.output for call in watched if call.output is not None]
    arrived = torch.autograd.grad(value, targets, allow_unused=True)
    by_name = dict(zip(names, arrived, strict=False))
    if costates is not None and batch is not None:
        for call, costate in zip(watched, arrived[len(names):], strict=True):
            square = 0.0 if costate is None else costate.double().square().sum().item() * batch.samples
            costates[call.stage] = costates.get(call.stage, 0.0) + square * batch.weight
    found = []
    for number, stage in enumerate(network.stages):
        weight, bias = by_name[network.weights[number]], None
        if weight is None:
            continue
        matrix = -stage.layer.matrix(weight.to(wide(weight.dtype)))
        if (name := network.biases[number]) is not None:
            given = by_name[name]
            bias = matrix.new_zeros(matrix.shape[:2]) if given is None else -given.to(matrix.dtype).reshape(matrix.shape[:2])
        found.append((number, Change(matrix, bias)))
    return found


def _add(means: dict[int, Change], number: int, gradient: Change, weight: float) -> None:
    if number not in means:
        bias = None if gradient.bias is None else gradient.bias * weight
        means[number] = Change(gradient.weight * weight, bias)
        return
    mean = means[number]
    mean.weight.add_(gradient.weight, alpha=weight)
    if mean.bias is not None and gradient.bias is not None:
        mean.bias.add_(gradient.bias, alpha=weight)
