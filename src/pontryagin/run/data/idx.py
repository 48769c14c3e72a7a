"""Files in IDX format, read as something that anybody may have written."""

import gzip
import hashlib
import struct
import zlib
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from pontryagin.run.data.catalog import IdxFile
from pontryagin.run.errors import ExperimentError

_LARGEST = 60000 * 28 * 28
_GZIP = b"\x1f\x8b"


def read_idx(path: Path, expected: IdxFile | None = None) -> UInt8[Tensor, "..."]:
    """An IDX file of unsigned bytes, plain or gzipped (by its first bytes): at most as large as MNIST's
    training images.

    Never more than its header says is decompressed, and no more than that is allowed. With `expected`, shape
    and MD5 of the uncompressed content must be those. Raises ExperimentError for anything else.
    """
    try:
        with cast("IO[bytes]", gzip.open(path, "rb") if is_gzip(path) else path.open("rb")) as content:
            return _read(path, content, expected)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise ExperimentError(f"{path}: cannot be read as an IDX file ({error}); get it anew") from error


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip files do."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _read(path: Path, file: IO[bytes], expected: IdxFile | None) -> Tensor:
    head = file.read(4)
    zeros, kind, dims = struct.unpack(">HBB", head)
    if zeros or kind != 8 or not 1 <= dims <= 3:
        raise ExperimentError(f"{path}: not an IDX file of MNIST's kind: begins with {head.hex()}; get it "
                              "anew")
    lengths = file.read(4 * dims)
    shape = struct.unpack(f">{dims}I", lengths)
    size = prod(shape)
    if size > _LARGEST or (expected and shape != expected.shape):
        wanted = f"shape {expected.shape}" if expected else f"at most {_LARGEST} bytes"
        raise ExperimentError(f"{path}: expected {wanted}, but its header says shape {shape}; get it anew")
    content = file.read(size + 1)  # the byte too many also makes gzip compare its own checksum
    if len(content) != size:
        held = "more" if len(content) > size else len(content)
        raise ExperimentError(f"{path}: its header says {size} bytes, but it holds {held}; get it anew")
    found = hashlib.md5(head + lengths + content, usedforsecurity=False).hexdigest()
    if expected and found != expected.md5:
        raise ExperimentError(f"{path}: expected the content with MD5 {expected.md5}, found {found}; get it "
                              "anew")
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape).copy())
