"""What changes of stages do to the outputs of a batch: by their costates, or by differences where z cannot be watched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pontryagin.diagnostics.audit_batches import Batch
from pontryagin.diagnostics.audit_loss import MeanLoss
from pontryagin.diagnostics.audit_network import Call, Network
from pontryagin.diagnostics.audit_outputs import combined, costates, directions, moved


@dataclass(frozen=True)
class Watch:
    """Which stages' costates tell samples apart, and how many numbers of z a sample has in each."""

    watched: frozenset[int]
    sizes: Mapping[int, int]


@dataclass(frozen=True)
class Trial:
    """A stage with the changes that are tried on it, each by itself."""

    number: int
    weights: Float[Tensor, "change group output input"]
    biases: Float[Tensor, "change group output"] | None


def probe(network: Network, batch: Batch) -> Watch:
    """Two small passes of different sizes: z must grow with the number of samples, along the first axis."""
    few = min(batch.samples, 3)
    found: list[dict[int, list[tuple[int, int, int]]]] = []
    for count in (few - 1, few):
        calls: dict[int, list[tuple[int, int, int]]] = {}
        for call in network.record(batch.part(0, count)[0])[1]:
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
    return tuple(length // samples for length in lengths) if all(n > 0 and n % samples == 0 for n in lengths) else ()


def output_changes(network: Network, loss: MeanLoss, inputs: object, targets: Tensor, trials: list[Trial], watch: Watch
                   ) -> tuple[Tensor, list[Float[Tensor, "sample change output"]], Tensor]:
    """Outputs, what every change of every trial does to them to first order, and the gradient of the mean loss there."""
    outputs, calls = network.record(inputs)
    samples = len(targets)
    value = outputs.detach().requires_grad_()
    gradient, = torch.autograd.grad(loss(value, targets), value)
    generator = torch.Generator().manual_seed(0)
    basis, factors = directions(outputs.detach(), gradient, loss.classes and outputs.ndim == 2, generator)
    places = {trial.number: place for place, trial in enumerate(trials) if trial.number in watch.watched}
    watched = [call for call in calls if call.stage in places]
    parts = _seen_by_costates(network, outputs, watched, basis, [trials[places[call.stage]] for call in watched], samples)
    moves = []
    for trial in trials:
        if trial.number in places:
            moves.append(combined(parts[trial.number], basis, factors))
        else:
            moves.append(_by_difference(network, inputs, trial))
    return outputs.detach(), moves, gradient


def _seen_by_costates(network: Network, outputs: Tensor, calls: list[Call], basis: Tensor, trials: list[Trial], samples: int
                      ) -> dict[int, list[Float[Tensor, "sample change"]]]:
    """v . delta of every direction v of the outputs, by stage: costates of v times dW x, added up over the stage's calls."""
    found: dict[int, list[Tensor]] = {}
    with torch.no_grad():
        states = [_state(network, call, trial, samples) for call, trial in zip(calls, trials, strict=True)]
    for direction in basis if calls else ():
        arrived = torch.autograd.grad(outputs, _outputs(calls), direction.reshape(outputs.shape),
                                      retain_graph=True, allow_unused=True)
        sums: dict[int, Tensor] = {}
        for call, state, costate in zip(calls, states, arrived, strict=True):
            if costate is None:
                product = state.new_zeros(state.shape[:2])
            else:
                u = costates(network.stages[call.stage].layer, costate, samples).to(state.dtype)
                product = torch.bmm(state, u.unsqueeze(2)).squeeze(2)
            sums[call.stage] = sums[call.stage] + product if call.stage in sums else product
        for number, total in sums.items():
            found.setdefault(number, []).append(total)
    return found


def _state(network: Network, call: Call, trial: Trial, samples: int) -> Float[Tensor, "sample change state"]:
    layer = network.stages[call.stage].layer
    assert call.inputs is not None
    assert call.output is not None
    assert layer.outputs is not None
    positions = layer.outputs(call.output.detach()).shape[1]
    return moved(layer, call.inputs, positions, trial.weights, trial.biases, samples)


def _by_difference(network: Network, inputs: object, trial: Trial) -> Float[Tensor, "sample change output"]:
    """The same without costates, where a stage's z cannot be watched: a central difference for every change."""
    stage, weight_name, bias_name = network.stages[trial.number], network.weights[trial.number], network.biases[trial.number]
    leaf = network.leaves[weight_name].detach()
    found, relative = [], torch.finfo(leaf.dtype).eps ** (1 / 3)
    for place, change in enumerate(trial.weights):
        h = relative * (torch.linalg.vector_norm(leaf) / torch.linalg.vector_norm(change)).nan_to_num(1.0, posinf=1.0).item()
        sides = []
        for step in (h, -h):
            replaced = {weight_name: leaf + step * stage.layer.shaped(change).to(leaf.dtype)}
            if bias_name is not None and trial.biases is not None:
                bias = network.leaves[bias_name].detach()
                replaced[bias_name] = bias + step * trial.biases[place].reshape(bias.shape).to(bias.dtype)
            sides.append(network.run(inputs, replaced))
        found.append(((sides[0] - sides[1]) / (2 * h)).flatten(1))
    return torch.stack(found, 1).to(trial.weights.dtype)


def _outputs(calls: list[Call]) -> list[Tensor]:
    return [call.output for call in calls if call.output is not None]
