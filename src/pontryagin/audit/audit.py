"""The audit of a trained network: passes, then true costs one by one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isclose, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.audit.gap import StageGradient, stage_gradients
from pontryagin.audit.network import Network, under_audit
from pontryagin.audit.predictions import Prediction, predictions, projected
from pontryagin.audit.result import Audit, Restriction, StageAudit, ranked
from pontryagin.audit.sets import Projection, chosen
from pontryagin.diagnostics.batches import Batch, gathered, joined
from pontryagin.diagnostics.looking import check_arguments, check_repeats
from pontryagin.diagnostics.loss import LossLike, MeanLoss
from pontryagin.problem import ProblemError

Sets = Sequence[str] | Mapping[str, Projection] | None
DAMPING = 0.1
"""Of the Gram matrices, relative to their mean diagonal: directions in which inputs hardly vary promise no
gain."""
_TOGETHER = 4
"""So many batches are run as one for the true costs: without a graph they take less memory than one with
it."""
Report = Callable[[str, int, int], object]
"""What is being done, how many steps of it are done, and of how many."""


def audit(model: nn.Module, loss: LossLike, batches: Iterable[Any], *, sets: Sets = None,
          measure: bool = True, memory: int = 512 * 2**20, progress: Report | None = None) -> Audit:
    """What is still to be had at every affine stage of a trained network, and what moving it into other sets
    would cost.

    The gain of a stage is that of its Hamiltonian, <G, dW>, at the argmax dW with a state penalty, whose rho
    is the curvature of the loss along dW; a mean over pairs of different batches, so that noise adds nothing
    to it: at a converged network it is zero within its error (gap.py). The cost of a set is predicted from
    the costates of the outputs (outputs.py) and measured with the stage's weights replaced; biases and
    vectors stay as they are. Nothing of the model is changed; it runs in evaluation mode. Where it draws
    random numbers there, those of a batch are the same in every pass (draws.Draws).

    Args:
        model: any module whose output is one tensor, (sample,) or (sample, ...).
        loss: "cross-entropy", "squared-error", or a function of outputs and targets: the mean over a batch,
            or one number a sample, (sample,) (MeanLoss; class indices of -100 do not count).
        batches: pairs (inputs, targets), three or more, for errors are those between batches (eight are
            better), all held in memory. Inputs: a tensor (sample, ...), or a tuple or dict of them as
            positional or named arguments of the model.
        sets: names of `admissible.names.NAMED` such as int4 or ternary-rows, or sets by name with project(W)
            and check(rows, inputs); by default those of `sets.STANDARD`.
        measure: also measure the true costs, a pass over the batches for every stage and set, which takes
            longest.
        memory: bytes that the changes of several stages, and those of their states, may take at a time; 512
            MiB by default, 1 MiB at least.
        progress: told what is being done, how many steps of it are done, and of how many.

    Raises:
        ProblemError: a wrong request.
        NonFiniteError: the loss or a gradient is not finite.
    """
    return list(auditing(model, loss, batches, sets=sets, measure=measure, memory=memory,
                         progress=progress))[-1]


def auditing(model: nn.Module, loss: LossLike, batches: Iterable[Any], *, sets: Sets = None,
             measure: bool = True, memory: int = 512 * 2**20, progress: Report | None = None
             ) -> Iterator[Audit]:
    """The same, step by step: first the audit without true costs, then again with those of one more stage
    each time. Arguments and errors are those of `audit`."""
    if memory < 2**20:
        raise ProblemError(f"audit: expected memory of at least 2^20 bytes, found {memory}")
    wanted = dict(sets) if isinstance(sets, Mapping) else chosen(None if sets is None else tuple(sets))
    say, mean_loss = progress or (lambda title, done, length: None), MeanLoss(loss)
    with under_audit(model) as network:
        held = gathered(batches, mean_loss.counted)
        _check(network, held)
        done = _predicted(network, mean_loss, held, wanted, memory, say)
        yield done
        if measure:
            yield from _measured(network, mean_loss, held, wanted, done, say)


def _check(network: Network, batches: Sequence[Batch]) -> None:
    if len(batches) < 3 or batches[0].samples < 2:
        raise ProblemError("audit: expected three batches or more (eight are better) of two samples or more "
                           f"with targets that count, found {len(batches)}: errors are estimated from the "
                           "differences between batches")
    first = batches[0]
    check_arguments("audit", network.model, first.inputs)
    outputs = check_repeats("audit", lambda: network.run(first.inputs, first.draw))
    if outputs.shape[:1] != (first.samples,):
        raise ProblemError(f"audit: expected outputs of {first.samples} samples along the first axis, as the "
                           f"first batch has them, found outputs of shape {tuple(outputs.shape)}; wrap the "
                           "model in a module that brings samples to the front")


def _predicted(network: Network, loss: MeanLoss, batches: Sequence[Batch], sets: Mapping[str, Projection],
               memory: int, say: Report) -> Audit:
    count = _Counter(say, "gradients and Gram matrices", 2 * len(batches))
    gradients, losses = stage_gradients(network, loss, batches, DAMPING, count)
    count = _Counter(say, "predicted costs", len(gradients) * len(batches))
    predicted = predictions(network, loss, batches, gradients, sets, memory, count)
    weights = [batch.weight for batch in batches]
    stages = [_stage(network, number, gradients[number], predicted[number], weights)
              for number in sorted(gradients)]
    mean, error = _mean(losses, weights)
    return Audit(mean, error, loss.name, sum(batch.samples for batch in batches), len(batches), tuple(sets),
                 DAMPING, ranked(stages, tuple(sets)), _unseen(network, gradients.keys()))


def _stage(network: Network, number: int, gradient: StageGradient, prediction: Prediction,
           weights: Sequence[float]) -> StageAudit:
    captured, gram = network.stages[number], gradient.gram
    scale = gradient.square / prediction.curvature if prediction.curvature > 0 else None  # 1 / rho
    gain, error, here = (None if scale is None else value * scale
                         for value in (*gradient.gain(weights), gradient.total))
    restrictions = tuple(Restriction(name, prediction.change[name],
                                     _mean(prediction.first_order[name], weights)[0], *_mean(costs, weights))
                         for name, costs in prediction.cost.items())
    return StageAudit(
        name=network.weights[number], kind=captured.map.kind, shape=tuple(captured.weight.shape),
        parameters=captured.weight.numel(), inputs=gram.inputs, gain=gain, gain_error=error, gain_here=here,
        costate_norm=None if gradient.costate is None else sqrt(gradient.costate), condition=gram.condition,
        effective_rank=gram.effective_rank, rows=gram.rows, restrictions=restrictions,
        omitted=prediction.omitted)


def _measured(network: Network, loss: MeanLoss, batches: Sequence[Batch], sets: Mapping[str, Projection],
              done: Audit, say: Report) -> Iterator[Audit]:
    count = _Counter(say, "true costs", sum(len(stage.restrictions) for stage in done.stages))
    weights = [batch.weight for batch in batches]
    together = _independent(network, loss, batches)
    base = _losses(network, loss, together)
    stages = list(done.stages)
    for place, stage in enumerate(stages):
        found = []
        for each in stage.restrictions:
            moved = projected(network, network.weights.index(stage.name), sets[each.set])
            after = _losses(network, loss, together, {stage.name: moved})
            mean, error = _mean([new - old for new, old in zip(after, base, strict=True)], weights)
            found.append(replace(each, true=mean, true_error=error))
            count()
        stages[place] = replace(stage, restrictions=tuple(found))
        yield replace(done, stages=tuple(stages))


def _independent(network: Network, loss: MeanLoss, batches: Sequence[Batch]) -> list[Sequence[Batch]]:
    """Batches to be run as one; each by itself where that changes their losses, because a module takes its
    samples together, or where their inputs do not fit together."""
    alone, together = ([batches[first:first + count] for first in range(0, len(batches), count)]
                       for count in (1, _TOGETHER))
    try:
        found = _losses(network, loss, together)
    except (RuntimeError, ValueError):  # inputs of several lengths, a fixed number of samples
        return alone
    same = all(isclose(one, other, rel_tol=1e-3, abs_tol=1e-5)  # sums in another order, not another function
               for one, other in zip(found, _losses(network, loss, alone), strict=True))
    return together if same else alone


@torch.no_grad()
def _losses(network: Network, loss: MeanLoss, groups: Sequence[Sequence[Batch]],
            replaced: Mapping[str, Tensor] | None = None) -> list[float]:
    """Of every batch; those of a group are run as one."""
    found = []
    for batches in groups:
        alone = len(batches) == 1
        draw = batches[0].draw if alone else tuple(batch.draw for batch in batches)
        outputs = network.run(batches[0].inputs if alone else joined(batches), draw, replaced)
        parts = outputs.split([batch.samples for batch in batches])
        found += [loss(part, batch.targets).item() for part, batch in zip(parts, batches, strict=True)]
    return found


def _mean(values: Sequence[float], weights: Sequence[float]) -> tuple[float, float]:
    """Weighted mean, and its standard error from the differences between batches."""
    mean = sum(weight * value for weight, value in zip(weights, values, strict=True))
    count = len(values)
    variance = sum((weight * count * (value - mean))**2
                   for weight, value in zip(weights, values, strict=True)) / (count - 1)
    return mean, sqrt(variance / count)


def _unseen(network: Network, audited: Iterable[int]) -> dict[str, str]:
    stages = set(network.weights)
    held = {network.weights[number] for number in audited}
    biases = {name for name in network.biases if name is not None}
    found = dict.fromkeys(sorted(stages - held),
                          "its module is not called in the forward pass, or does not reach the loss")
    return found | {name: "it belongs to no affine stage"
                    for name in network.leaves if name not in stages | biases}


class _Counter:
    """Counts the steps of one kind of work."""

    def __init__(self, say: Report, title: str, length: int) -> None:
        self.say, self.title, self.length, self.done = say, title, length, 0
        say(title, 0, length)

    def __call__(self, steps: int = 1) -> None:
        self.done += steps
        self.say(self.title, self.done, self.length)
