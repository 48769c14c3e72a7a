"""A model under audit: run with other weights and watched at its stages, and left exactly as it was."""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from pontryagin.audit.activation import Follower, Track
from pontryagin.diagnostics.draws import Draws
from pontryagin.diagnostics.looking import arguments, looking, one_tensor
from pontryagin.optim.capture import find_stages
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import Rows, rows_of

Inputs = Any
"""A tensor, or a tuple or dict of tensors as positional or named arguments; samples along the first axis."""


@dataclass(frozen=True)
class Call:
    """A call of a stage: the module's arguments, x among them, and z itself where it can be told from the
    module's output.

    track: what becomes of z.
    """

    stage: int
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    inputs: Tensor | None
    output: Tensor | None
    track: Track | None


class Network:
    """The model in evaluation mode, its parameters behind aliases of their own, its buffers behind copies.

    stages: with their parameters' names. run() and record() never touch the model's tensors, gradients or
    flags; hooks and the evaluation mode last as long as the context of `under_audit`.
    """

    def __init__(self, model: nn.Module, draws: Draws) -> None:
        self.model, self.draws = model, draws
        self.stages, self.users = find_stages(model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.weights = [names[id(stage.weight)] for stage in self.stages]
        self.biases = [None if stage.bias is None else names.get(id(stage.bias)) for stage in self.stages]
        self.leaves = {name: parameter.detach().requires_grad_(parameter.is_floating_point())
                       for name, parameter in model.named_parameters()}
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._versions = {name: buffer._version for name, buffer in self.buffers.items()}
        self._calls: list[Call] | None = None
        self._follower = Follower()
        if any(parameter.is_meta for parameter in model.parameters()) or not self.stages:
            raise ProblemError("audit: expected a model with weights in at least one affine stage (Linear, "
                               "convolution, Embedding, normalization), found none")

    def rows(self, number: int) -> Rows:
        """What a row of the stage's weight is."""
        stage = self.stages[number]
        return rows_of(stage.module, stage.layer.weight)

    def hook(self, numbers: list[int]) -> Any:
        """A forward hook that records a call of these stages."""

        def seen(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            if self._calls is None:
                return None
            observable = isinstance(output, Tensor)
            given = output.clone() if observable else None  # z survives an in-place activation
            for number in numbers:
                layer = self.stages[number].layer
                x = layer.inputs(arguments, named)
                z = output if observable and layer.outputs is not None else None
                track = None if z is None or given is None else self._follower.follow(z, given)
                self._calls.append(Call(number, arguments, named, None if x is None else x.detach(), z,
                                        track))
            return given

        return seen

    def record(self, inputs: Inputs, draw: Hashable) -> tuple[Tensor, list[Call]]:
        """Outputs with a graph down to the leaves, and all calls of stages in order. draw: passes with equal
        ones draw the same random numbers."""
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
        replaced = {stage.layer.weight: weight}
        if bias is not None and stage.layer.bias is not None:
            replaced[stage.layer.bias] = bias
        return functional_call(stage.module, replaced, tuple(map(_detached, call.arguments)),
                               {name: _detached(value) for name, value in call.named.items()})

    @torch.no_grad()
    def run(self, inputs: Inputs, draw: Hashable, replaced: Mapping[str, Tensor] | None = None) -> Tensor:
        """Outputs, with some parameters replaced."""
        return self._run(inputs, draw, {**self.leaves, **(replaced or {})})

    def _run(self, inputs: Inputs, draw: Hashable, parameters: Mapping[str, Tensor]) -> Tensor:
        positional, named = arguments(inputs)
        self._renew_buffers()
        self.draws.begin(draw)
        return one_tensor("audit",
                          functional_call(self.model, (dict(parameters), self.buffers), positional, named))


    def _renew_buffers(self) -> None:
        """Every pass begins with the model's: one may count its calls in evaluation mode too."""
        for name, buffer in self.model.named_buffers():
            if self.buffers[name]._version != self._versions[name]:
                self.buffers[name] = buffer.clone()
                self._versions[name] = self.buffers[name]._version


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
            handle: RemovableHandle = module.register_forward_hook(network.hook(numbers), with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(torch.enable_grad())
        yield network
