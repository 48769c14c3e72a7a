"""The part of a tensor that lies in this process, and the whole of it, where torch spreads tensors over
processes (DTensor: `fully_shard`, `parallelize_module`).

torch.distributed.tensor takes a second to import, and without it there are no such tensors.
"""

import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def is_spread(value: object) -> bool:
    """Whether a tensor is a DTensor."""
    found = sys.modules.get("torch.distributed.tensor")
    return found is not None and isinstance(value, found.DTensor)


def local_part(value: Tensor) -> Tensor:
    """The tensor that holds this process's numbers, written to in place; of a plain one itself."""
    spread: Any = value
    return spread._local_tensor if is_spread(value) else value


def local_parts(values: Iterable[Tensor]) -> list[Tensor]:
    """Of each."""
    spread = "torch.distributed.tensor" in sys.modules
    return [local_part(value) for value in values] if spread else list(values)


def whole(value: Tensor) -> Tensor:
    """All numbers of a tensor. Of a DTensor in parts every process of its mesh has to call it."""
    if not is_spread(value):
        return value
    spread: Any = value
    return spread.full_tensor()


def as_spread(part: Tensor, like: Tensor) -> Tensor:
    """A part that lies in this process, as a tensor that is spread as another one of its shape is."""
    if not is_spread(like):
        return part
    other: Any = like
    return sys.modules["torch.distributed.tensor"].DTensor.from_local(
        part, other.device_mesh, other.placements, run_check=False, shape=like.shape, stride=like.stride())


def part_as(value: Tensor, like: Tensor) -> Tensor:
    """What lies in this process of a tensor that is to be spread as another one of its shape is. Every
    process of both meshes has to call it."""
    spread: Any = value
    other: Any = like
    if not is_spread(like):
        return whole(value)
    if is_spread(value) and (spread.device_mesh, spread.placements) == (other.device_mesh, other.placements):
        return local_part(value)
    distribute = sys.modules["torch.distributed.tensor"].distribute_tensor
    return local_part(distribute(whole(value).to(like.device), other.device_mesh, other.placements))


def shards_around(model: nn.Module) -> str | None:
    """The name of a parameter that a module around this one shards, or tensor parallel beside fully_shard."""
    found = sys.modules.get("torch.distributed.fsdp")
    if found is None or not any(getattr(module, "_is_fsdp_managed_module", False)  # torch's mark
                                for module in model.modules()):
        return None
    within = {id(parameter) for module in model.modules() if isinstance(module, found.FSDPModule)
              for parameter in module.parameters()}
    return next((name for name, parameter in model.named_parameters()
                 if is_spread(parameter) and id(parameter) not in within), None)


def at_rest(model: nn.Module) -> None:
    """Parameters lie in parts again: after a pass without a backward pass fully_shard leaves some whole."""
    found = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules() if found is not None else ():
        if isinstance(module, found.FSDPModule):  # type: ignore[union-attr]
            module.reshard()
