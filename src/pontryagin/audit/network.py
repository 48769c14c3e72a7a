"""A model under audit: run with other weights and watched at its stages, and left exactly as it was."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pontryagin.audit.activation import Follower, Track
from pontryagin.diagnostics.batches import Inputs, arguments
from pontryagin.diagnostics.draws import Draws
from pontryagin.diagnostics.looking import looking, one_tensor
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Rows, rows_of
from pontryagin.trajectory.capture import find_stages


@dataclass(frozen=True)
class Call:
    """A call of a stage: the module's arguments, x among them; z itself where it can be told from the
    module's output, and the track of what becomes of it."""

    stage: int
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    inputs: Tensor | None
    output: Tensor | None
    track: Track | None


class Network:
    """The model in evaluation mode, its parameters behind aliases of their own, its buffers behind copies.

    stages: those of the model; weights, biases: the names of their parameters. run() and record() never touch
    the model's tensors, gradients or flags; hooks and the evaluation mode last as long as `under_audit`.
    """

    def __init__(self, model: nn.Module, draws: Draws) -> None:
        self.model, self.draws = model, draws
        self.stages, self.users = find_stages(model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.weights = [names[id(stage.weight)] for stage in self.stages]
        self.biases = [None if stage.bias is None else names.get(id(stage.bias)) for stage in self.stages]
        self.leaves = {name: parameter.detach().requires_grad_(parameter.is_floating_point())
                       for name, parameter in model.named_parameters()}
        self._buffers: dict[str, tuple[Tensor, int]] = {}
        self._calls: list[Call] | None = None
        self._follower = Follower()
        if any(parameter.is_meta for parameter in model.parameters()) or not self.stages:
            raise ProblemError("audit: expected a model with weights in at least one affine stage (Linear, "
                               "convolution, Embedding, normalization), found none")

    def weight(self, number: int) -> Tensor:
        """The weight of a stage."""
        return self.leaves[self.weights[number]].detach()

    def bias(self, number: int) -> Tensor | None:
        """The bias of a stage, if it has one."""
        return None if (name := self.biases[number]) is None else self.leaves[name].detach()

    def rows(self, number: int) -> Rows:
        """What a row of the stage's weight is."""
        stage = self.stages[number]
        return rows_of(stage.module, stage.map.weight)

    def replaced(self, number: int, weight: Tensor, bias: Tensor | None = None) -> dict[str, Tensor]:
        """Parameters of a stage by name, for run()."""
        name = self.biases[number]
        return {self.weights[number]: weight} | ({} if bias is None or name is None else {name: bias})

    @torch.no_grad()
    def run(self, inputs: Inputs, draw: Hashable, replaced: Mapping[str, Tensor] | None = None) -> Tensor:
        """Outputs, with some parameters replaced. Passes with equal `draw` draw the same random numbers."""
        return self._run(inputs, draw, {**self.leaves, **(replaced or {})})

    def record(self, inputs: Inputs, draw: Hashable) -> tuple[Tensor, list[Call]]:
        """Outputs with a graph down to the leaves, and all calls of stages in order."""
        self._calls, self._follower = [], Follower()
        try:
            with self._follower:
                output = self._run(inputs, draw, self.leaves)
            return output, self._calls
        finally:
            self._calls = None

    @torch.no_grad()
    def output(self, call: Call, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """z of the call again, with these parameters of the stage."""
        stage = self.stages[call.stage]
        replaced = {stage.map.weight: weight}
        if bias is not None and stage.map.bias is not None:
            replaced[stage.map.bias] = bias
        return functional_call(stage.module, replaced, tuple(map(_detached, call.arguments)),
                               {name: _detached(value) for name, value in call.named.items()})

    def seen(self, numbers: Sequence[int], arguments: tuple[Any, ...], named: dict[str, Any],
             output: Any) -> Any:
        """A module has computed these stages: a call of each while record() runs. Returns what takes the
        output's place."""
        if self._calls is None:
            return None
        given = output.clone() if isinstance(output, Tensor) else None  # z survives an in-place activation
        for number in numbers:
            layer = self.stages[number].map
            x = layer.inputs(arguments, named)
            track = None if given is None or layer.outputs is None else self._follower.follow(output, given)
            self._calls.append(Call(number, arguments, named, None if x is None else x.detach(),
                                    None if track is None else output, track))
        return given

    def _run(self, inputs: Inputs, draw: Hashable, parameters: Mapping[str, Tensor]) -> Tensor:
        positional, named = arguments(inputs)
        held = (dict(parameters), self._fresh_buffers())
        self.draws.begin(draw)
        return one_tensor("audit", functional_call(self.model, held, positional, named))

    def _fresh_buffers(self) -> dict[str, Tensor]:
        """Copies equal to the model's: it may count its calls in evaluation mode too."""
        for name, buffer in self.model.named_buffers():
            copy, version = self._buffers.get(name, (buffer, -1))
            if copy._version != version:
                copy = buffer.clone()
                self._buffers[name] = copy, copy._version
        return {name: copy for name, (copy, _) in self._buffers.items()}


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


@contextmanager
def under_audit(model: nn.Module) -> Iterator[Network]:
    """The network of a model; at the end its hooks, training flags and generators of random numbers are as
    before."""
    inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if not isinstance(inner, nn.Module):
        raise ProblemError(f"audit: expected a torch module, found {type(model).__name__}")
    if any(nn.parameter.is_lazy(parameter) for parameter in inner.parameters()):
        raise ProblemError("audit: the model has lazy parameters without a shape; run it on one batch first")
    with ExitStack() as stack:
        network = Network(inner, stack.enter_context(looking(inner)))
        for module, stages in network.users:
            numbers = [network.stages.index(stage) for stage in stages]

            def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any,
                     numbers: list[int] = numbers) -> Any:
                return network.seen(numbers, arguments, named, output)

            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        stack.enter_context(torch.enable_grad())
        yield network
