"""Data sets: digits inside scikit-learn, MNIST and Fashion-MNIST from a folder of IDX files, text from Python's own library."""

import gzip
import os
import struct
import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pontryagin.experiments.errors import ExperimentError

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_LARGEST = 60000 * 28 * 28


class Images(NamedTuple):
    """Images (sample, 1, height, width) in [0, 1], float32, and labels (sample,), for training and for testing."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load_images(name: str, folder: str | None = None) -> Images:
    """`digits`, or `mnist` / `fashion-mnist` from `folder`, PONTRYAGIN_DATA or their subfolder of that name.

    MNIST's first 55000 training images are used, as in the paper. Raises ExperimentError when a file is missing or wrong.
    """
    if name == "digits":
        return _digits()
    if name not in {"mnist", "fashion-mnist"}:
        raise ExperimentError(f"unknown data {name!r}: expected digits, mnist or fashion-mnist")
    where = folder or os.environ.get("PONTRYAGIN_DATA")
    if not where:
        raise ExperimentError(f"{name} is read from a folder with its four IDX files ({', '.join(_FILES)}, plain or .gz): name "
                              "it by --data FOLDER or PONTRYAGIN_DATA, or use --dataset digits")
    base = Path(where) / name if (Path(where) / name).is_dir() else Path(where)
    train, train_labels, test, test_labels = (read_idx(_find(base, file)) for file in _FILES)
    for images, labels in ((train, train_labels), (test, test_labels)):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ExperimentError(f"{base}: expected as many labels as images, found shapes {tuple(images.shape)} and "
                                  f"{tuple(labels.shape)}")
    return Images(_pixels(train[:55000]), train_labels[:55000].long(), _pixels(test), test_labels.long())


def read_idx(path: Path) -> Tensor:
    """An IDX file of unsigned bytes, plain or gzipped; at most as large as MNIST, and exactly as large as its header says."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            zeros, kind, dims = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{dims}I", file.read(4 * dims))
            size = int(np.prod(shape, dtype=np.float64))
            if zeros or kind != 8 or not 1 <= dims <= 3 or size > _LARGEST:
                raise ExperimentError(f"{path}: not an IDX file of MNIST's kind: type {kind}, shape {shape}")
            content = file.read(size + 1)
    except (OSError, EOFError, struct.error) as error:
        raise ExperimentError(f"{path}: cannot be read as an IDX file ({error}); get it anew") from error
    if len(content) != size:
        held = "more" if len(content) > size else len(content)
        raise ExperimentError(f"{path}: its header says {size} bytes, but it holds {held}")
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape).copy())


def load_text() -> tuple[Tensor, int]:
    """Characters of the modules of Python's standard library as indices, and how many different ones; about 5 million."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.py")))
    codes = np.frombuffer("".join(c if 32 <= ord(c) < 127 or c == "\n" else "?" for c in text).encode(), np.uint8)
    used, indices = np.unique(codes, return_inverse=True)
    return torch.from_numpy(indices.astype(np.int64)), len(used)


def _digits() -> Images:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ExperimentError("digits come with scikit-learn: pip install 'pontryagin[data]'") from error
    found = load_digits()
    order = torch.randperm(len(found.images), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(found.images / 16.0).float().unsqueeze(1)[order]
    labels = torch.from_numpy(found.target).long()[order]
    return Images(images[:1500], labels[:1500], images[1500:], labels[1500:])


def _pixels(images: Tensor) -> Tensor:
    return images.unsqueeze(1).float() / 255


def _find(base: Path, name: str) -> Path:
    for path in (base / name, base / f"{name}.gz"):
        if path.is_file():
            return path
    raise ExperimentError(f"{base}: expected {name} or {name}.gz, found neither")
