"""The Hamiltonian gain still to be had at a stage, without the bias that noise gives it.

Per sample, G_i = u x^T (summed over positions) and g_i = u; with the Gram matrix A_c, its mean s and damping
delta,

    dW = (G - g s^T) (A_c + delta I)^-1,   db = g - dW s,   <G, dW> + <g, db> = Q(G, G)

is the direction of the argmax with a state penalty, and Q(G, G') = <G - g s^T, (G' - g' s'^T) (A_c + delta
I)^-1> + <g, g'>. For means G of independent batches E Q(G_a, G_b) = Q(E G, E G) when a differs from b, while
E Q(G_b, G_b) is larger by the noise. So there are two passes over the batches: Gram matrices and the mean
gradient of every stage, then the gradients' spread over batches.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pontryagin.affine import Change
from pontryagin.affine.precision import wide
from pontryagin.audit.gram import Gram, GramRows
from pontryagin.audit.network import Call, Network
from pontryagin.diagnostics.batches import Batch
from pontryagin.problem import NonFiniteError

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets to the mean over samples."""


@dataclass
class StageGradient:
    """What both passes find about a stage.

    direction: (dW, db) of the argmax for rho = 1. square: mean |dW x + db|^2 of it, per row. total: Q(G, G)
    of the mean gradient; own, cross: of the batches, with themselves and with the mean. costate: mean over
    samples of |u|^2, None if not watched.
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
    sums, losses = _Sums(network, len(batches)), []
    for place, batch in enumerate(batches):
        losses.append(sums.add(loss, batch, place))
        advance()
    found = sums.taken(damping)
    for batch in batches:
        outputs, _ = network.record(batch.inputs, batch.draw)
        for number, gradient in _gradients(network, loss(outputs, batch.targets))[0].items():
            if (stage := found.get(number)) is not None:
                stage.own.append(gradient.dot(stage.gram.argmax(gradient)[0]))
                stage.cross.append(gradient.dot(stage.direction))
        advance()
    return found, losses


def across_batches(total: float, own: Sequence[float], cross: Sequence[float],
                   weights: Sequence[float]) -> tuple[float, float]:
    """Mean of Q(G_a, G_b) over pairs of different batches, and its standard error by the jackknife over
    batches.

    With weights w_b that add up to 1 and the mean G = sum_b w_b G_b: total = Q(G, G), own_b = Q(G_b, G_b),
    cross_b = Q(G_b, G). Needs three batches.
    """
    w, q, k = (torch.tensor(values, dtype=torch.float64) for values in (weights, own, cross))
    squares, diagonal = w.square(), (w.square() * q).sum()
    estimate = (total - diagonal) / (1 - squares.sum())
    left_out = total - 2 * w * k + squares * q - (diagonal - squares * q)
    left_out = left_out / ((1 - w).square() - (squares.sum() - squares))
    spread = (left_out - left_out.mean()).square().sum() * (len(w) - 1) / len(w)
    return estimate.item(), spread.sqrt().item()


class _Sums:
    """What the first pass adds up by stage: mean gradients, rows of inputs, squares of costates."""

    def __init__(self, network: Network, batches: int) -> None:
        self.network, self.batches = network, batches
        self.means: dict[int, Change] = {}
        self.rows: dict[int, GramRows] = {}
        self.squares: dict[int, float] = defaultdict(float)

    def add(self, loss: Loss, batch: Batch, place: int) -> float:
        """The loss of a batch, after a pass over it."""
        outputs, calls = self.network.record(batch.inputs, batch.draw)
        for call in calls:
            if call.inputs is not None:
                stage = self.network.stages[call.stage]
                self.rows.setdefault(call.stage,
                                     GramRows(stage.map, stage.weight, self.batches)).add(call.inputs)
        value = loss(outputs, batch.targets)
        if not value.isfinite():
            raise NonFiniteError(f"the loss of batch {place} is {value.item()}: look at this batch or the "
                                 "weights")
        watched = [call for call in calls if call.output is not None]
        gradients, costates = _gradients(self.network, value, watched)
        for call, costate in zip(watched, costates, strict=True):
            square = 0.0 if costate is None else costate.double().square().sum().item()
            self.squares[call.stage] += square * batch.samples * batch.weight
        for number, gradient in gradients.items():
            if not gradient.is_finite():
                raise NonFiniteError(f"the gradient of {self.network.stages[number].name} in batch {place} "
                                     "is not finite")
            if number in self.means:
                self.means[number].add(gradient, batch.weight)
            else:
                self.means[number] = gradient.times(batch.weight)
        return value.item()

    def taken(self, damping: float) -> dict[int, StageGradient]:
        """The stages whose modules were called, those without rows left out; the sums are gone."""
        found = {}
        for number in sorted(self.means.keys() & self.rows.keys()):
            gradient, gram = self.means.pop(number), self.rows.pop(number).gram(damping)
            if gram is not None:
                direction, square = gram.argmax(gradient)
                found[number] = StageGradient(gram, direction, square, gradient.dot(direction),
                                              self.squares.get(number))
        return found


def _gradients(network: Network, value: Tensor, watched: Sequence[Call] = ()
               ) -> tuple[dict[int, Change], Sequence[Tensor | None]]:
    """(G, g) of every stage, minus the gradients of the mean loss; and the costates of the calls watched."""
    names = [name for name in dict.fromkeys((*network.weights, *network.biases)) if name is not None]
    targets = [*(network.leaves[name] for name in names), *(call.output for call in watched)]
    arrived = torch.autograd.grad(value, targets, allow_unused=True)  # type: ignore[arg-type]
    by_name = dict(zip(names, arrived, strict=False))
    found = {}
    for number, stage in enumerate(network.stages):
        weight, bias_name = by_name[network.weights[number]], network.biases[number]
        if weight is None:
            continue
        matrix = -stage.map.matrix(weight.to(wide(weight.dtype)))
        bias = None
        if bias_name is not None:
            bias, given = torch.zeros_like(matrix[..., 0]), by_name[bias_name]
            bias = bias if given is None else -given.to(bias.dtype).reshape(bias.shape)
        found[number] = Change(matrix, bias)
    return found, arrived[len(names):]
