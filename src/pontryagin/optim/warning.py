"""What is said of the parameters that are trained by AdamW: how many they are, and whose."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

_LINE = 90
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def described(model: nn.Module, names: Sequence[str], reason: str) -> str:
    """Three lines: the share of the parameters, the classes of their modules, their names as far as there is
    room."""
    parameters, modules = dict(model.named_parameters(remove_duplicate=False)), dict(model.named_modules())
    total = sum(parameter.numel() for parameter in model.parameters()) or 1
    classes: dict[str, int] = {}
    for name in names:
        kind = type(modules[name.rpartition(".")[0]]).__name__
        classes[kind] = classes.get(kind, 0) + parameters[name].numel()
    largest = sorted(classes, key=lambda kind: -classes[kind])
    shares = [f"{kind} {classes[kind] / total:.2g}" for kind in largest]
    return (f"EMSA trains {sum(classes.values()) / total:.1%} of the parameters by AdamW: {reason}.\n"
            f"Their classes, and the share of each: {_listed(shares)}.\n"
            f"Trained by AdamW: {_listed(names)}")


def _listed(words: Sequence[str]) -> str:
    """The first of them, as far as a line reaches, and how many more there are."""
    kept: list[str] = []
    for word in words:
        if kept and len(", ".join([*kept, word])) > _LINE:
            break
        kept.append(word)
    return ", ".join(kept) + (f" and {len(words) - len(kept)} more" if len(words) > len(kept) else "")


def warn(message: str) -> None:
    """A warning at the line of the user's that called, however deep inside the libraries."""
    frame, depth = sys._getframe(1), 2
    while frame is not None and frame.f_back is not None and _is_library(frame.f_code.co_filename):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, stacklevel=depth)


def _is_library(file: str) -> bool:
    return file.startswith(_LIBRARIES) or Path(file).name == "contextlib.py"
