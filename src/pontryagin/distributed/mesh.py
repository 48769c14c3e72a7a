"""How torch has spread the parameters of a model over processes: `fully_shard`, also with replicas (HSDP),
and tensor parallel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from pontryagin.distributed.communicator import Processes
from pontryagin.errors import ProblemError
from pontryagin.trajectory.local import is_spread


@dataclass(frozen=True)
class Spread:
    """A mesh of processes, and along which of its dimensions parameters are cut. ranks: that share them;
    replicas: that have the same parts, None without; everyone: whose batches count, all processes of the
    mesh."""

    mesh: Any
    dimension: int
    ranks: Processes
    replicas: Processes | None
    everyone: Processes

    def axis(self, parameter: Tensor) -> int | None:
        """Along which axis a parameter is cut; None where all ranks have all of it."""
        spread: Any = parameter
        placement = spread.placements[self.dimension] if is_spread(parameter) else None
        return placement.dim if placement is not None and placement.is_shard() else None

    def spread(self, part: Tensor, shape: Sequence[int], axis: int) -> Tensor:
        """Parts of a tensor of this shape that is cut along an axis, as a DTensor."""
        from torch.distributed.tensor import DTensor, Replicate, Shard

        placements = [Shard(axis) if n == self.dimension else Replicate() for n in range(self.mesh.ndim)]
        strides = [1]
        for length in reversed(shape[1:]):
            strides.insert(0, strides[0] * length)
        return DTensor.from_local(part.contiguous(), self.mesh, placements, run_check=False,
                                  shape=torch.Size(shape), stride=tuple(strides))


def spread_of(named: Iterable[tuple[str, Tensor]]) -> Spread | None:
    """Of the parameters of a model; None where none is a DTensor. ProblemError for what EMSA cannot step."""
    found = [(name, parameter) for name, parameter in named if is_spread(parameter)]
    if not found:
        return None
    first, known = found[0]
    mesh, dimensions = known.device_mesh, set()  # type: ignore[attr-defined]
    for name, parameter in found:
        spread: Any = parameter
        if spread.device_mesh != mesh:
            raise ProblemError(f"EMSA: {first} and {name} lie on different device meshes: pass the same mesh "
                               "to every fully_shard and parallelize_module")
        cut = [n for n, placement in enumerate(spread.placements) if placement.is_shard()]
        if len(cut) > 1 or any(type(placement).__name__ not in ("Shard", "Replicate")
                               for placement in spread.placements):
            raise ProblemError(f"EMSA: {name} is cut as {spread.placements}, as by tensor parallel and "
                               "fully_shard together: use one of them, or fully_shard with a mesh of "
                               "replicas and shards")
        dimensions |= set(cut)
    if len(dimensions) > 1:
        raise ProblemError("EMSA: parameters are cut along different dimensions of the mesh: use fully_shard "
                           "or tensor parallel alone")
    dimension = dimensions.pop() if dimensions else mesh.ndim - 1
    if mesh.ndim == 1:
        ranks = Processes(mesh.get_group())
        return Spread(mesh, dimension, ranks, None, ranks)
    if mesh.ndim > 2 or mesh.size() != distributed.get_world_size():
        raise ProblemError("EMSA: expected a mesh of shards, or one of replicas and shards that holds all "
                           f"{distributed.get_world_size()} processes, found {mesh}")
    ranks, replicas = (Processes(mesh.get_group(n)) for n in (dimension, 1 - dimension))
    return Spread(mesh, dimension, ranks, replicas, Processes())


def spread_over(group: Any) -> Spread:
    """A group whose processes all have the whole model, as under DistributedDataParallel; None: of all."""
    from torch.distributed.device_mesh import DeviceMesh

    ranks = Processes(group)
    kind = "cuda" if distributed.get_backend(group) == "nccl" else "cpu"
    everyone: Any = distributed.group.WORLD
    mesh = DeviceMesh.from_group(everyone if group is None else group, kind)
    return Spread(mesh, 0, ranks, None, ranks)
