"""Files of packed weights.

    8 bytes PMPPACK1 or ...2 | 32 bytes SHA-256 of all that follows | 8 bytes length of header, little-endian
    | header | payload

The header is JSON, {"tensors": [...]}, an entry for each tensor in the order of the payload: name, shape,
dtype (of the weight) and, if packed, step and limit of the codes and the number of scales. The payload holds
for a packed weight its codes (bits.py) and then its scales, for any other tensor its entries; all
little-endian, without gaps. Nothing in a file is executed.

Codes come row by row, rows the first axis. Only PMPPACK2 may say `groups` of a packed weight: it is that of a
transposed convolution of so many groups, whose rows are output channels (`Rows`). It is written where one is,
so that what reads PMPPACK1 alone refuses the file.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pontryagin.export.bits import bits_of, packed_bytes
from pontryagin.export.packed import PackedWeight, packed_weight
from pontryagin.problem import ProblemError
from pontryagin.problem.admissible import DiscreteSet, Rows
from pontryagin.problem.admissible.grid import Grid

MAGIC, MAGIC_WITH_GROUPS = b"PMPPACK1", b"PMPPACK2"
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.bool)}
_LARGEST_HEADER = 1 << 24

PackedState = dict[str, PackedWeight | Tensor]
"""A model's state dict, some of its weights packed."""


def packed_state(state: Mapping[str, Tensor], sets: Mapping[str, DiscreteSet]) -> PackedState:
    """A state dict with the named weights packed, rows being outputs. ProblemError for names that it lacks
    and weights outside their set."""
    unknown = sorted(sets.keys() - state.keys())
    if unknown:
        raise ProblemError(f"no tensor is named {', '.join(map(repr, unknown))}: expected names of "
                           f"{', '.join(state) or 'none'}")
    found: PackedState = {}
    for name, value in state.items():
        if str(value.dtype).removeprefix("torch.") not in _DTYPES or value.layout != torch.strided:
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
    """Write a file, whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(_written(state))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_packed(path: str | Path) -> PackedState:
    """Read a file that may come from anywhere. ProblemError when its checksum, a size or a code is not
    right."""
    content = Path(path).read_bytes()
    if content[:8] not in (MAGIC, MAGIC_WITH_GROUPS):
        raise ProblemError(f"{path}: not a file of packed weights (it does not begin with {MAGIC.decode()} "
                           f"or {MAGIC_WITH_GROUPS.decode()})")
    if len(content) < 48 or hashlib.sha256(content[40:]).digest() != content[8:40]:
        raise ProblemError(f"{path}: the checksum does not match its {len(content)} bytes: it is damaged or "
                           "cut off; export anew")
    length = int.from_bytes(content[40:48], "little")
    largest = min(_LARGEST_HEADER, len(content) - 48)
    if length > largest:
        raise ProblemError(f"{path}: expected a header of at most {largest} bytes, found {length}")
    try:
        entries = [_Entry(one, content[:8] == MAGIC_WITH_GROUPS)
                   for one in json.loads(content[48:48 + length])["tensors"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProblemError(f"{path}: the header cannot be read ({error})") from error
    payload = memoryview(content)[48 + length:]
    total = sum(entry.bytes for entry in entries)
    if total != len(payload) or len({entry.name for entry in entries}) != len(entries):
        raise ProblemError(f"{path}: expected {total} bytes for tensors of different names, found "
                           f"{len(payload)}")
    state: PackedState = {}
    for entry in entries:
        try:
            state[entry.name] = entry.read(payload[:entry.bytes])
        except ProblemError as error:
            raise ProblemError(f"{path}, {entry.name}: {error}") from error
        payload = payload[entry.bytes:]
    return state


class _Entry:
    """What the header says of a tensor; ValueError, KeyError or TypeError when that cannot be."""

    def __init__(self, found: Mapping[str, Any], grouped: bool) -> None:
        self.name, self.shape, self.dtype = found["name"], torch.Size(found["shape"]), _DTYPES[found["dtype"]]
        if not isinstance(self.name, str) or any(size < 0 for size in self.shape):
            raise ValueError(f"a tensor named {self.name!r} of shape {tuple(self.shape)}")
        self.count = prod(self.shape)
        self.grid = self.scales = None
        self.bytes = self.count * self.dtype.itemsize
        if "limit" in found:
            self.grid, self.scales = Grid(found["step"], found["limit"]), found["scales"]
            self.rows = Rows(self.shape, _groups(found, self.shape) if grouped else None)
            rows = self.rows.size[0]
            if (not 1 <= self.grid.limit <= 127 or self.grid.step not in (1, 2)
                or self.scales not in (1, rows)
                    or not self.dtype.is_floating_point):
                raise ValueError(f"{self.name} has {self.grid}, {self.scales} scales for {rows} rows, "
                                 f"{self.dtype}")
            self.bytes = packed_bytes(self.count, bits_of(self.grid)) + self.scales * self.dtype.itemsize

    def read(self, content: memoryview) -> PackedWeight | Tensor:
        if self.grid is None or self.scales is None:
            return _tensor(content, self.dtype).view(self.shape)
        size = self.bytes - self.scales * self.dtype.itemsize
        found = PackedWeight(self.grid, _tensor(content[:size], torch.uint8),
                             _tensor(content[size:], self.dtype), self.rows)
        if not (found.scales.isfinite().all() and (found.scales > 0).all()):
            raise ProblemError("expected finite scales > 0")
        found.weight()  # refuses what is no code
        return found


def _groups(found: Mapping[str, Any], shape: torch.Size) -> int | None:
    groups = found.get("groups")
    if groups is not None and not (isinstance(groups, int) and groups >= 1 and len(shape) > 2
                                   and shape[0] % groups == 0):
        raise ValueError(f"{groups!r} groups of a weight of shape {tuple(shape)}")
    return groups


def _written(state: PackedState) -> bytes:
    entries, parts, magic = [], [], MAGIC
    for name, value in state.items():
        dtype = value.scales.dtype if isinstance(value, PackedWeight) else value.dtype
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape),
                                 "dtype": str(dtype).removeprefix("torch.")}
        if isinstance(value, PackedWeight):
            entry |= {"step": value.grid.step, "limit": value.grid.limit, "scales": len(value.scales)}
            if value.rows.groups is not None:
                entry["groups"] = value.rows.groups
                magic = MAGIC_WITH_GROUPS
            parts += [_bytes(value.codes), _bytes(value.scales)]
        else:
            parts.append(_bytes(value))
        entries.append(entry)
    header = json.dumps({"tensors": entries}).encode()
    body = b"".join([len(header).to_bytes(8, "little"), header, *parts])
    return magic + hashlib.sha256(body).digest() + body


def _bytes(value: Tensor) -> bytes:
    _check_byte_order()
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _tensor(content: memoryview, dtype: torch.dtype) -> Tensor:
    _check_byte_order()
    if not len(content):
        return torch.zeros(0, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(dtype)


def _check_byte_order() -> None:
    if sys.byteorder != "little":
        raise ProblemError("packed files are read and written on little-endian machines only")
