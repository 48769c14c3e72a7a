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

Moves = Float[Tensor, "sample change output"]


@dataclass(frozen=True)
class Watch:
    """Which stages' costates tell samples apart, and how many numbers of z a sample has in each."""

    watched: frozenset[int]
    sizes: Mapping[int, int]


@dataclass(frozen=True)
class Trial:
    """A stage with what is tried on it. weights: W in other sets, shaped as the parameter; way, bias_way: a
    small step along the argmax's direction, `scale` times as long as the direction itself."""

    number: int
    weights: tuple[Tensor, ...]
    way: Tensor
    bias_way: Tensor | None
    scale: float


@dataclass(frozen=True)
class OutputChanges:
    """Of a stage. sets: by the weights in sets, with the stage's own activation as it is; linear: to first
    order; way: by the argmax's direction, to first order."""

    sets: Moves
    linear: Moves
    way: Float[Tensor, "sample output"]


def probe(network: Network, batch: Batch) -> Watch:
    """Two small passes of different sizes: z must grow with the number of samples, along the first axis."""
    few = min(batch.samples, 3)
    found: list[dict[int, list[tuple[int, int, int]]]] = []
    for count in (few - 1, few):
        calls: dict[int, list[tuple[int, int, int]]] = {}
        for call in network.record(batch.part(0, count).inputs, batch.draw)[1]:
            x, z = call.inputs, call.output
            shape = (-1, -1, 0) if x is None or z is None else (len(x), len(z), z.numel())
            calls.setdefault(call.stage, []).append(shape)
        found.append(calls)
    small, large = found
    watched, sizes = set(), {}
    for number, shapes in large.items():
        before = small.get(number, [])
        if len(before) == len(shapes) and all(_per_sample(a[:2], few - 1) == _per_sample(b[:2], few) != ()
                                              for a, b in zip(before, shapes, strict=True)):
            watched.add(number)
        sizes[number] = sum(size for _, _, size in shapes) // few
    return Watch(frozenset(watched), sizes)


def _per_sample(lengths: Sequence[int], samples: int) -> tuple[int, ...]:
    return tuple(length // samples for length in lengths) if all(n > 0 and n % samples == 0
                                                                 for n in lengths) else ()


def output_changes(network: Network, loss: MeanLoss, part: Part, trials: list[Trial], watch: Watch
                   ) -> tuple[Tensor, list[OutputChanges], Tensor]:
    """Outputs, what every trial does to them, and the gradient of the mean loss there."""
    outputs, calls = network.record(part.inputs, part.draw)
    samples = len(part.targets)
    value = outputs.detach().requires_grad_()
    gradient, = torch.autograd.grad(loss(value, part.targets), value)
    generator = torch.Generator().manual_seed(0)
    basis, factors = directions(outputs.detach(), gradient, loss.classes and outputs.ndim == 2, generator)
    places = {trial.number: trial for trial in trials if trial.number in watch.watched}
    watched = [call for call in calls if call.stage in places]
    parts = _by_costates(network, outputs, watched, basis, places, samples)
    moves = []
    for trial in trials:
        if trial.number in places:
            delta = combined(parts[trial.number], basis, factors)
            count = len(trial.weights)
            moves.append(OutputChanges(delta[:, :count], delta[:, count:2 * count],
                                       delta[:, -1] / trial.scale))
        else:
            moves.append(_by_difference(network, part, trial))
    return outputs.detach(), moves, gradient


def _by_costates(network: Network, outputs: Tensor, calls: list[Call], basis: Tensor,
                 trials: Mapping[int, Trial], samples: int) -> dict[int,
                                                                    list[Float[Tensor, "sample change"]]]:
    """v . delta of every direction v of the outputs, by stage, added up over the stage's calls: costates of v
    at the end of the track times the change there, for the sets; costates of v at z times the change of z,
    for the sets and the way."""
    ends, states = [], []
    for call in calls:
        assert call.output is not None
        assert call.track is not None
        end, steps = call.track.end()
        z, trial = call.output.detach(), trials[call.stage]
        moved = [network.output(call, weight) for weight in trial.weights]
        linear = [each - z for each in moved] + [network.output(call, trial.way, trial.bias_way) - z]
        with torch.no_grad():
            if not steps:
                exact = linear[:-1]
            else:
                for step in steps:
                    moved = [step(each) for each in moved]
                exact = [each - end for each in moved]
            states.append((_rows(exact, samples), _rows(linear, samples)))
        ends += [end, call.output]
    found: dict[int, list[Tensor]] = {}
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


def _rows(changes: list[Tensor], samples: int) -> Float[Tensor, "sample change state"] | None:
    return torch.stack([change.reshape(samples, -1) for change in changes], 1) if changes else None


def _products(state: Float[Tensor, "sample change state"], costate: Tensor | None) -> Float[Tensor,
                                                                                            "sample change"]:
    if costate is None:
        return state.new_zeros(state.shape[:2])
    return torch.bmm(state, costate.reshape(len(state), -1, 1).to(state.dtype)).squeeze(2)


def _by_difference(network: Network, part: Part, trial: Trial) -> OutputChanges:
    """The same without costates, where a stage's z cannot be watched: a central difference for every change,
    all linear."""
    name, bias_name = network.weights[trial.number], network.biases[trial.number]
    leaf = network.leaves[name].detach()
    bias = None if bias_name is None else network.leaves[bias_name].detach()
    relative = torch.finfo(leaf.dtype).eps ** (1 / 3)
    found = []
    for weight, other in [(weight, bias) for weight in trial.weights] + [(trial.way, trial.bias_way)]:
        change = weight - leaf
        h = relative * (torch.linalg.vector_norm(leaf)
                        / torch.linalg.vector_norm(change)).nan_to_num(1.0, posinf=1.0).item()
        sides = []
        for step in (h, -h):
            replaced = {name: leaf + step * change}
            if bias_name is not None and bias is not None and other is not None:
                replaced[bias_name] = bias + step * (other - bias)
            sides.append(network.run(part.inputs, part.draw, replaced))
        found.append(by_sample((sides[0] - sides[1]) / (2 * h)))
    changes = torch.stack(found, 1)
    return OutputChanges(changes[:, :-1], changes[:, :-1], changes[:, -1] / trial.scale)
