"""Files of packed weights: safetensors files whose metadata say what is packed.

A tensor that is not packed has its own name, a packed weight two: NAME.codes (bytes, bits.py) and
NAME.scales. The metadata of the header hold

    format    pontryagin-packed-weights-1
    tensors   JSON, an entry for each tensor of the state dict in its order: its name; of a packed weight also
              its shape, step and limit of its codes, and groups, if of a transposed convolution (`Rows`)
    checksum  SHA-256 of all that (`checksum`)

Codes come row by row, rows the first axis, or output channels where groups are given. Nothing in a file is
executed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pontryagin.diagnostics.files import write_bytes
from pontryagin.export.packed import PackedWeight, packed_weight
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import DiscreteSet, Rows
from pontryagin.problem.admissible.grid import Grid

FORMAT = "pontryagin-packed-weights-1"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16,
           torch.int32, torch.int64, torch.bool)

PackedState = dict[str, PackedWeight | Tensor]
"""A model's state dict, some of its weights packed."""


def packed_state(state: Mapping[str, Tensor], sets: Mapping[str, DiscreteSet]) -> PackedState:
    """A state dict with some of its weights packed, rows being outputs.

    Args:
        state: a model's state dict, dense tensors of floating-point numbers, integers or bools.
        sets: by name, the set in which a weight lies exactly, such as Ternary(scale="row"); no others are
            packed.

    Raises:
        ProblemError: names that the state lacks, weights outside their set, or other tensors.
    """
    unknown = sorted(sets.keys() - state.keys())
    if unknown:
        raise ProblemError(f"no tensor is named {', '.join(map(repr, unknown))}: expected names of "
                           f"{', '.join(state) or 'none'}")
    found: PackedState = {}
    for name, value in state.items():
        if value.dtype not in _DTYPES or value.layout != torch.strided:
            raise ProblemError(f"{name}: cannot export a {value.layout} tensor of {value.dtype}")
        try:
            found[name] = packed_weight(value, sets[name]) if name in sets else value.detach()
        except ProblemError as error:
            raise ProblemError(f"{name}: {error}") from error
    return found


def whole_state(state: PackedState) -> dict[str, Tensor]:
    """The state dict with all weights whole, exactly as they were."""
    return {name: value.weight() if isinstance(value, PackedWeight) else value for name,
            value in state.items()}


def save_packed(path: str | Path, state: PackedState) -> None:
    """Write a packed state (`packed_state`) as a file, whole or not at all. ProblemError where the codes of
    one tensor would have the name of another."""
    entries: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        parts = {name: value} if isinstance(value, Tensor) else _parts(name, value)
        if clash := tensors.keys() & parts.keys():
            raise ProblemError("expected names that differ from NAME.codes and NAME.scales of packed "
                               f"weights, found two tensors {', '.join(sorted(clash))}: rename one")
        # copies, for tensors of a state dict may share their memory
        tensors |= {key: part.detach().cpu().clone(memory_format=torch.contiguous_format)
                    for key, part in parts.items()}
        entries.append({"name": name} | ({} if isinstance(value, Tensor) else _described(value)))
    described = json.dumps(entries)
    write_bytes(Path(path), safetensors.torch.save(
        tensors, {"format": FORMAT, "tensors": described, "checksum": checksum(described, tensors)}))


def load_packed(path: str | Path) -> PackedState:
    """Read a file of `save_packed` that may come from anywhere. ProblemError when it is another file, or its
    checksum, a size or a code is not right."""
    content = Path(path).read_bytes()
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise ProblemError(f"{path}: not a file of packed weights, or damaged or cut off "
                           f"({' '.join(str(error).split())})") from error
    said = header.get("__metadata__", {})
    if said.get("format") != FORMAT:
        raise ProblemError(f"{path}: not a file of packed weights: expected the format {FORMAT}, found "
                           f"{said.get('format')!r}")
    if said.get("checksum") != checksum(said.get("tensors", ""), tensors):
        raise ProblemError(f"{path}: the checksum does not match its {len(content)} bytes: it is damaged; "
                           "export anew")
    state: PackedState = {}
    name: Any = "first"
    try:
        for entry in json.loads(said["tensors"]):
            name = entry["name"]
            if not isinstance(name, str) or name in state:
                raise ValueError("expected a name of its own")
            state[name] = _read(entry, tensors)
    except (ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise ProblemError(f"{path}: the description does not fit tensor {name} ({error})") from error
    if tensors:
        raise ProblemError(f"{path}: expected a description of every tensor, found none of "
                           f"{', '.join(tensors)}")
    return state


def checksum(described: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of the description and of name, dtype, shape and entries of each tensor, by
    name."""
    found = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        found.update(value.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _parts(name: str, weight: PackedWeight) -> dict[str, Tensor]:
    return {f"{name}.codes": weight.codes, f"{name}.scales": weight.scales}


def _described(weight: PackedWeight) -> dict[str, Any]:
    groups = {} if weight.rows.groups is None else {"groups": weight.rows.groups}
    return {"shape": list(weight.shape), "step": weight.grid.step, "limit": weight.grid.limit} | groups


def _read(entry: dict[str, Any], tensors: dict[str, Tensor]) -> PackedWeight | Tensor:
    """What an entry describes, taken out of the tensors. ValueError, KeyError or TypeError when that cannot
    be."""
    name = entry["name"]
    if "limit" not in entry:
        return tensors.pop(name)
    codes, scales = tensors.pop(f"{name}.codes"), tensors.pop(f"{name}.scales")
    shape, grid, groups = torch.Size(entry["shape"]), Grid(entry["step"], entry["limit"]), entry.get("groups")
    if any(size < 0 for size in shape) or not 1 <= grid.limit <= 127 or grid.step not in (1, 2):
        raise ValueError(f"its shape is {tuple(shape)}, and {grid}")
    if groups is not None and not (isinstance(groups, int) and groups >= 1 and len(shape) > 2
                                   and shape[0] % groups == 0):
        raise ValueError(f"{groups!r} groups of a weight of shape {tuple(shape)}")
    rows = Rows(shape, groups)
    if scales.shape not in ((1,), (rows.size[0],)) or not (scales.isfinite() & (scales > 0)).all():
        raise ValueError(f"expected 1 or {rows.size[0]} finite scales > 0, found {tuple(scales.shape)}")
    if not scales.is_floating_point() or codes.dtype != torch.uint8:
        raise ValueError(f"it has codes of {codes.dtype} and scales of {scales.dtype}")
    found = PackedWeight(grid, codes, scales, rows)
    found.weight()  # refuses what is no code
    return found
