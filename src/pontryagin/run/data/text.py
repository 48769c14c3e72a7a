"""Text that every Python brings along."""

import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def load_text() -> tuple[Tensor, int]:
    """Python's standard library, about 5 million characters as indices, and how many different ones."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.py")))
    codes = np.frombuffer("".join(c if 32 <= ord(c) < 127 or c == "\n" else "?" for c in text).encode(),
                          np.uint8)
    used, indices = np.unique(codes, return_inverse=True)
    return torch.from_numpy(indices.astype(np.int64)), len(used)
