"""Weights of a trained model, from a file that is loaded without executing anything in it."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.run.errors import ExperimentError

_INSIDE = ("model", "state_dict", "model_state_dict")
"""Where checkpoints keep them."""
_UNREADABLE = (pickle.UnpicklingError, struct.error, RuntimeError, EOFError, LookupError, ValueError,
               TypeError, AttributeError, AssertionError, ImportError)
"""What torch.load raises for files of another kind, or with changed bytes: found by trying thousands."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Put a state dict, or that inside a checkpoint (`state_dict_of`), into the model.

    Prefixes of DataParallel (module.) and torch.compile (_orig_mod.) are taken off. Raises ExperimentError.
    """
    state = state_dict_of(path)
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        told = " ".join(str(error).split())[:400]
        raise ExperimentError(f"{path}: does not fit the model: {told}") from error
    broken = [name for name, value in state.items()
              if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ExperimentError(f"{path}: {', '.join(broken[:3])} hold NaN or infinite values: expected a "
                              "trained model")


def state_dict_of(path: Path) -> dict[str, Tensor]:
    """The state dict in a file that torch.save wrote with tensors and plain types only, by itself or inside a
    checkpoint. Raises ExperimentError."""
    content = _content(path)
    inside = [content[name] for name in _INSIDE if isinstance(content, Mapping)
              and isinstance(content.get(name), Mapping)]
    content = inside[0] if inside else content
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor)
                                                                  for value in content.values()):
        mapping = isinstance(content, Mapping)
        held = ", ".join(map(str, list(content)[:5])) if mapping else type(content).__name__
        raise ExperimentError(f"{path}: expected a state dict, by itself or under one of "
                              f"{', '.join(_INSIDE)}; found {held}")
    return dict(content)


def _content(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read ({error.strerror})") from error
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExperimentError(f"{path}: expected a file of torch.save with tensors and plain types (a state "
                              f"dict); it cannot be loaded safely: {reason}") from error
