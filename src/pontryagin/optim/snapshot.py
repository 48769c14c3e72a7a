"""What a trial changes and has to leave as it was: a model, its gradients, the generators of random
numbers."""

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

_HOLDERS = (nn.Module, DataLoader, Dataset, Sampler)
"""Whose attributes may be generators, or others of these."""


def snapshot(model: nn.Module, *others: object) -> Callable[[], None]:
    """Keep parameters, buffers, requires_grad, .grad and training flags of the model, the attributes of its
    modules (what they name, not what is written into it) where their class is not torch's own, the states of
    all global generators, and those of generators that are attributes of its modules or of `others` (a loss,
    a DataLoader with its samplers and data set). Costs a copy of parameters, gradients and buffers.

    Returns what puts all of it back, bit by bit, and can be called again.
    """
    modules = list(model.modules())
    attributes = [_attributes_of(module) for module in modules]
    named: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (held, dict(held)) for module in modules for held in (module._parameters, module._buffers)]
    tensors = {id(tensor): tensor for _, held in named for tensor in held.values() if tensor is not None}
    values = [(tensor, tensor.detach().clone(), tensor.requires_grad, tensor.grad,
               None if tensor.grad is None else tensor.grad.clone()) for tensor in tensors.values()]
    generators = [(one, _state_of(one)) for one in _generators([*modules, *others])]
    everywhere = generator_states()

    @torch.no_grad()
    def restore() -> None:
        for module, found in zip(modules, attributes, strict=True):
            for name in vars(module).keys() - found.keys() if len(found) > 1 else ():
                del vars(module)[name]
            vars(module).update(found)
        for held, found in named:
            held.clear()
            held.update(found)
        for tensor, value, requires_grad, gradient, entries in values:
            tensor.copy_(value)
            tensor.requires_grad_(requires_grad)
            tensor.grad = gradient
            if gradient is not None and entries is not None:  # it may be a view of what was written to
                gradient.copy_(entries)
        for one, state in generators:
            _set_state(one, state)
        set_generators(everywhere)

    return restore


def _attributes_of(module: nn.Module) -> dict[str, Any]:
    """Those of torch's modules are theirs alone, such as the bookkeeping of DistributedDataParallel."""
    is_torchs = type(module).__module__.partition(".")[0] == "torch"
    return {"training": module.training} if is_torchs else dict(vars(module))


def _generators(sources: Iterable[object]) -> list[Any]:
    """All that are reached from there by attributes."""
    seen: dict[int, object] = {}
    waiting = list(sources)
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen[id(one)] = one
            waiting += vars(one).values() if isinstance(one, _HOLDERS) else ()
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    return [one for one in seen.values() if isinstance(one, kinds)]


def _state_of(one: Any) -> Any:
    if isinstance(one, np.random.Generator):
        return one.bit_generator.state
    return one.getstate() if isinstance(one, random.Random) else one.get_state()


def _set_state(one: Any, state: Any) -> None:
    if isinstance(one, np.random.Generator):
        one.bit_generator.state = state
    elif isinstance(one, random.Random):
        one.setstate(state)
    else:
        one.set_state(state)


def seed_generators(seed: int) -> None:
    """Of torch (all devices), numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def generator_states() -> dict[str, Any]:
    """Of all global generators that models, data or methods may draw from, as tensors and plain types."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {"torch": torch.get_rng_state(), "python": [version, torch.tensor(numbers), gauss],
             "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached]}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_generators(state: dict[str, Any]) -> None:
    """Go on from such states."""
    torch.set_rng_state(state["torch"].cpu())
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])
