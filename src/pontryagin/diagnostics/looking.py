"""What every look at a model sees to: evaluation mode, the same random numbers in every pass, and all as
before at the end."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pontryagin.diagnostics.batches import Inputs, arguments
from pontryagin.diagnostics.draws import Draws, State, same_draws
from pontryagin.problem import ProblemError

_SAME = 1e-3
"""By so much, relatively, outputs of one pass may differ when it is done again: sums in another order on a
GPU."""


@contextmanager
def looking(model: nn.Module, states: dict[Hashable, State] | None = None) -> Iterator[Draws]:
    """The model in evaluation mode, its random numbers in hand; at the end flags and generators are as
    before. states: where to keep the beginnings of passes, for looks that follow.

    Attention takes the way that also training takes: torch's fast path for inference gives 0 at padded
    places.
    """
    flags = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    with same_draws(model, states) as draws:
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            model.eval()
            yield draws
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module, training in flags:
                module.training = training


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[Callable[[], None]]:
    """A function that puts the model's buffers back where a pass has changed them in place; called at the end
    too."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    versions = [buffer._version for buffer, _ in kept]

    @torch.no_grad()
    def renew() -> None:
        for place, (buffer, value) in enumerate(kept):
            if buffer._version != versions[place]:
                buffer.copy_(value)
                versions[place] = buffer._version

    try:
        yield renew
    finally:
        renew()


@contextmanager
def second_derivatives(what: str) -> Iterator[None]:
    """Around passes and derivatives: attention by plain products and softmax, for torch's fused kernels
    can be differentiated only once. ProblemError, naming `what`, for other functions without a second
    derivative."""
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    except RuntimeError as error:
        told = str(error)
        if "is not implemented" not in told and "double backward" not in told.lower():
            raise
        raise ProblemError(f"{what}: part of the model has no second derivative in torch: "
                           f"{told.splitlines()[0]}") from error


def check_repeats(what: str, run: Callable[[], Tensor]) -> Tensor:
    """The outputs of a pass. ProblemError when they differ when it is done twice: differences between passes
    would mean nothing."""
    with torch.no_grad():
        one, other = run(), run()
    if one.shape != other.shape or bool((one - other).norm() > _SAME * one.norm()):
        raise ProblemError(f"{what}: two passes over the same batch differ in evaluation mode: the model "
                           "draws random numbers from a generator that is neither global nor an attribute of "
                           "its modules, or remembers passes")
    return one


def check_arguments(what: str, model: nn.Module, inputs: Inputs) -> None:
    """ProblemError when the model's forward cannot be called with these inputs."""
    positional, named = arguments(inputs)
    try:
        signature(model.forward).bind(*positional, **named)
    except TypeError as error:
        given = f"a dict of {', '.join(map(str, named))}" if named else f"{len(positional)} arguments"
        raise ProblemError(f"{what}: the model does not take the inputs of a batch, {given}: {error} (a "
                           "tuple of inputs is spread over positional arguments, a dict over named "
                           "ones)") from error
    except ValueError:  # a forward without a signature, of compiled code: its first call will tell
        return


def one_tensor(what: str, output: Any) -> Tensor:
    """The output of a model. ProblemError unless it is one tensor."""
    if not isinstance(output, Tensor):
        raise ProblemError(f"{what}: expected a model whose output is one tensor, found "
                           f"{type(output).__name__}; wrap it in a module that returns what the loss takes")
    return output
