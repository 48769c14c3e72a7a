"""What changes of stages do to the outputs of a batch: by their costates, or by differences where z cannot be
watched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.audit.network import Call, Network
from pontryagin.audit.outputs import by_sample, combined, directions
from pontryagin.diagnostics.batches import Batch, Part
from pontryagin.diagnostics.loss import MeanLoss

Moves = Float[Tensor, "sample _ output"]
Products = Float[Tensor, "sample change"]


@dataclass(frozen=True)
class Watch:
    """Which stages' costates tell samples apart, and how many numbers of z a sample has in each."""

    watched: frozenset[int]
    sizes: Mapping[int, int]


@dataclass(frozen=True)
class Trial:
    """A stage with what is tried on it: W in other sets, then (W, b) a small step along the argmax's
    direction, `scale` times as long as the direction itself. W is shaped as the parameter."""

    number: int
    weights: tuple[Tensor, ...]
    bias: Tensor | None
    scale: float


def probe(network: Network, batch: Batch) -> Watch:
    """Two small passes of different sizes: z must grow with the number of samples, along the first axis."""
    few = min(batch.samples, 3)
    small, large = _shapes(network, batch, few - 1), _shapes(network, batch, few)
    watched = [number for number, calls in large.items() if len(calls) == len(small.get(number, ()))
               and all(_per_sample(one[:2], few - 1) == _per_sample(other[:2], few) != ()
                       for one, other in zip(small[number], calls, strict=True))]
    return Watch(frozenset(watched), {number: sum(size for _, _, size in calls) // few
                                      for number, calls in large.items()})


def _shapes(network: Network, batch: Batch, samples: int) -> dict[int, list[tuple[int, int, int]]]:
    """Of the calls of every stage: lengths of x and z, and entries of z."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for call in network.record(batch.part(0, samples).inputs, batch.draw)[1]:
        x, z = call.inputs, call.output
        found.setdefault(call.stage, []).append((-1, -1, 0) if x is None or z is None
                                                else (len(x), len(z), z.numel()))
    return found


def _per_sample(lengths: Sequence[int], samples: int) -> tuple[int, ...]:
    whole = all(length > 0 and length % samples == 0 for length in lengths)
    return tuple(length // samples for length in lengths) if whole else ()


def output_changes(network: Network, loss: MeanLoss, part: Part, trials: list[Trial], watch: Watch
                   ) -> tuple[Tensor, Tensor, list[tuple[Moves, Moves]]]:
    """Outputs, the gradient of the mean loss there, and what every trial does to them: by the weights in sets
    with the stage's own activation as it is, and by all weights to first order."""
    outputs, calls = network.record(part.inputs, part.draw)
    value = outputs.detach().requires_grad_()
    gradient, = torch.autograd.grad(loss(value, part.targets), value)
    basis, factors = directions(outputs.detach(), gradient, loss.classes and outputs.ndim == 2,
                                torch.Generator().manual_seed(0))
    watched = {trial.number: trial for trial in trials if trial.number in watch.watched}
    found = _by_costates(network, outputs, [call for call in calls if call.stage in watched], basis, watched,
                         len(part.targets))
    moves = []
    for trial in trials:
        if trial.number in watched:
            delta, sets = combined(found[trial.number], basis, factors), len(trial.weights) - 1
            moves.append((delta[:, :sets], delta[:, sets:]))
        else:
            linear = _by_difference(network, part, trial)
            moves.append((linear[:, :-1], linear))
    return outputs.detach(), gradient, moves


def _by_costates(network: Network, outputs: Tensor, calls: list[Call], basis: Tensor,
                 trials: Mapping[int, Trial], samples: int) -> dict[int, list[Products]]:
    """v . delta of every direction v of the outputs, by stage, added up over the stage's calls: costates of v
    at the end of the track times the change there, for the sets; costates of v at z times the change of z,
    for the sets and the way."""
    ends: list[Tensor] = []
    states = []
    for call in calls:
        assert call.output is not None
        assert call.track is not None
        end, exact, linear = _state_changes(network, call, trials[call.stage])
        ends += [end, call.output]
        states.append([torch.stack([change.reshape(samples, -1) for change in changes], 1)
                       if changes else None for changes in (exact, linear)])
    found: dict[int, list[Products]] = {}
    for direction in basis if calls else ():
        arrived = torch.autograd.grad(outputs, ends, direction.reshape(outputs.shape), retain_graph=True,
                                      allow_unused=True)
        sums: dict[int, Tensor] = {}
        for place, (call, pair) in enumerate(zip(calls, states, strict=True)):
            total = torch.cat([_products(state, arrived[2 * place + side]) for side, state in enumerate(pair)
                               if state is not None], 1)
            sums[call.stage] = sums[call.stage] + total if call.stage in sums else total
        for number, total in sums.items():
            found.setdefault(number, []).append(total)
    return found


@torch.no_grad()
def _state_changes(network: Network, call: Call, trial: Trial) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The end of the call's track; the changes there by the weights in sets, and those of z by all
    weights."""
    end, steps = call.track.end()  # type: ignore[union-attr]
    moved = [network.output(call, weight) for weight in trial.weights[:-1]]
    moved.append(network.output(call, trial.weights[-1], trial.bias))
    linear = [each - call.output.detach() for each in moved]  # type: ignore[union-attr]
    if not steps:
        return end, linear[:-1], linear
    moved.pop()
    for step in steps:
        moved = [step(each) for each in moved]
    return end, [each - end for each in moved], linear


def _products(state: Float[Tensor, "sample change state"], costate: Tensor | None) -> Products:
    if costate is None:
        return state.new_zeros(state.shape[:2])
    return torch.bmm(state, costate.reshape(len(state), -1, 1).to(state.dtype)).squeeze(2)


def _by_difference(network: Network, part: Part, trial: Trial) -> Moves:
    """By all weights to first order, without costates, where a stage's z cannot be watched: central
    differences."""
    leaf, bias = network.weight(trial.number), network.bias(trial.number)
    relative = torch.finfo(leaf.dtype).eps ** (1 / 3)  # where rounding and the third derivative cost the same
    found = []
    for place, weight in enumerate(trial.weights, 1):
        change, shift = weight - leaf, None
        if bias is not None and trial.bias is not None and place == len(trial.weights):
            shift = trial.bias - bias
        h = relative * (torch.linalg.vector_norm(leaf)
                        / torch.linalg.vector_norm(change)).nan_to_num(1.0, posinf=1.0).item()
        plus, minus = (network.run(part.inputs, part.draw, network.replaced(
            trial.number, leaf + step * change, None if shift is None else bias + step * shift))
                       for step in (h, -h))
        found.append(by_sample((plus - minus) / (2 * h)))
    return torch.stack(found, 1)
