"""Checkpoint files: tensors and plain types, whole or not there, checked before anything of them is used.

A file is what torch.save writes (torch.load reads it too), a zip archive, whose comment holds the size and
the SHA-256 of the rest.
"""

import hashlib
import io
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pontryagin.run.content import read_bytes
from pontryagin.run.errors import ExperimentError, shown
from pontryagin.run.files import write_bytes
from pontryagin.run.option import MANY

FORMAT = 2
"""Since 2 a checkpoint has facts (facts.py), without which no run goes on; models of 1 are read as before."""
_LABEL = b"pontryagin checkpoint "
_SEAL = len(_LABEL) + 20 + 1 + 64
_PLAIN = {type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device}


_UNREADABLE = (pickle.UnpicklingError, struct.error, RuntimeError, EOFError, LookupError, ValueError,
               TypeError, AttributeError, AssertionError, ImportError, OverflowError)
"""What torch.load raises for files of another kind, or with changed bytes: found by trying thousands."""


class CheckpointError(ExperimentError):
    """A checkpoint cannot be read, or is not of this run."""


def write(path: Path, content: dict[str, Any]) -> None:
    """The whole file or the old one. Raises CheckpointError for more than tensors and plain types."""
    _check_plain(content, "")
    write_bytes(path, packed({"format": FORMAT} | content))


def write_next(path: Path, content: dict[str, Any]) -> None:
    """The same, and the file that was there stays as its previous one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.next.tmp")
    write(fresh, content)
    if path.exists():
        path.replace(previous(path))
    fresh.replace(path)
    _settle(path.parent)


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The content. Raises CheckpointError for a file that is missing, cut, changed, of another format, or
    that holds more than tensors and plain types; nothing in the file is executed."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); name a checkpoint or the folder "
                              "of a run") from error
    content = loaded(path, data, device, sealed=True)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict, found {type(content).__name__}")
    _check_plain(content, "")
    if content.get("format") not in (1, FORMAT):
        raise CheckpointError(f"{path}: expected checkpoint format 1 or {FORMAT}, found "
                              f"{content.get('format')!r}: it was written by another version of pontryagin; "
                              "use that version")
    return content


def read_last(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any], str] | None:
    """The checkpoint, or the one before it and why the last cannot be used; None when there is neither."""
    if not path.exists() and not previous(path).exists():
        return None
    if not path.exists():
        return read(previous(path), device), ""
    try:
        return read(path, device), ""
    except CheckpointError as error:
        if not previous(path).exists():
            raise
        return read(previous(path), device), f"{error}; going on from the checkpoint before it"


def check_kinds(path: Path, content: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """That a file of this package holds what it must, each of its kind: a type or a tuple of types. Whole
    numbers count something. Raises CheckpointError."""
    for name, kind in kinds.items():
        value = content.get(name)
        if name not in content or not isinstance(value,
                                                 kind) or (isinstance(value, bool) and kind is not bool) or (
                kind is int and not 0 <= value <= MANY) or (isinstance(value, float) and not isfinite(value)):
            found = shown(value) if name in content else "nothing"
            raise CheckpointError(f"{path}: expected {name} as a run writes it, found {found}: the file is "
                                  "not of a run, or has been changed")


def packed(content: dict[str, Any]) -> memoryview:
    """As the content of a file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with buffer.getbuffer() as data:
        seal = _seal(data)
    buffer.seek(-2, io.SEEK_END)  # the length of the archive's comment, which was empty
    buffer.write(_SEAL.to_bytes(2, "little") + seal)
    return buffer.getbuffer()


def _seal(*parts: bytes | memoryview) -> bytes:
    """Label, size and SHA-256 of the archive, always of the same length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return _LABEL + b"%020d " % sum(map(len, parts)) + digest.hexdigest().encode()


def loaded(path: Path, data: bytes, device: torch.device | str, sealed: bool = False) -> Any:
    """The content of a file of torch.save, whoever wrote it; nothing in it is executed. sealed: it must have
    the seal of this package. Raises CheckpointError for a file that is cut, changed or of another kind, and
    for one that holds more than tensors and plain types."""
    label = data[-_SEAL:].startswith(_LABEL)
    if sealed and not (label and data[-_SEAL - 2:-_SEAL] == _SEAL.to_bytes(2, "little")):
        raise CheckpointError(f"{path}: expected a checkpoint of pontryagin, found a file of {len(data):,} "
                              "bytes without its seal: it is another kind of file, or its end is missing")
    if label:
        _check_seal(path, data)
    if data.startswith(b"PK"):
        _check_archive(path, data, label)
    try:
        return torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except _UNREADABLE as error:
        held = re.search(r"(?:GLOBAL|class|function) ([\w.]+)", str(error))
        more = f": it holds {held.group(1)}, which is code" if held else ""
        raise CheckpointError(f"{path}: expected a file of torch.save with tensors and plain types (a state "
                              f"dict); found another kind of file, or a damaged one{more}; save "
                              "model.state_dict() anew") from error


def _check_seal(path: Path, data: bytes) -> None:
    """Raises CheckpointError when the comment is not that of the rest."""
    seal, expected = data[-_SEAL:], _seal(memoryview(data)[:-_SEAL - 2], b"\0\0")
    if seal[:-64] != expected[:-64]:
        raise CheckpointError(f"{path}: holds {len(data):,} bytes, which is not the size that its seal says: "
                              "it is cut or damaged")
    if seal != expected:
        raise CheckpointError(f"{path}: its checksum is not that of its content: it has been changed or "
                              "damaged")


def _check_archive(path: Path, data: bytes, labelled: bool) -> None:
    """The checksums of the parts, which torch does not look at. Raises CheckpointError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > len(data):
                raise CheckpointError(f"{path}: holds compressed parts, which no file of torch.save has")
            if archive.testzip() is not None or (archive.comment and not labelled):
                raise CheckpointError(f"{path}: its checksums are not those of its content: it has been "
                                      "changed or damaged")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, OSError,
            ValueError) as error:
        raise CheckpointError(f"{path}: is cut off or damaged ({error}); take another copy, of a run the "
                              "checkpoint before it") from error


def _check_plain(value: object, place: str) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, (str, int, float)):
                raise CheckpointError(f"a checkpoint cannot hold the key {key!r} of {place or 'the top'}")
            _check_plain(part, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):  # torch.Size too
        for number, part in enumerate(value):
            _check_plain(part, f"{place}.{number}")
    elif not isinstance(value, Tensor) and type(value) not in _PLAIN:
        raise CheckpointError(f"a checkpoint holds tensors and plain types, found {type(value).__name__} at "
                              f"{place}")


def _settle(folder: Path) -> None:
    """Names in the folder survive a loss of power, where the system can promise that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
