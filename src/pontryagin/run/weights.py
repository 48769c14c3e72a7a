"""Weights of a trained model, from a file that is loaded without executing anything in it."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn, strided

from pontryagin.export import load_packed, whole_state
from pontryagin.export.file import FORMAT as PACKED
from pontryagin.run.checkpoint import loaded
from pontryagin.run.content import read_bytes
from pontryagin.run.errors import ExperimentError

_INSIDE = ("model", "state_dict", "model_state_dict")
"""Where checkpoints keep them."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Put a state dict, or that inside a checkpoint (`state_dict_of`), into the model.

    Prefixes of DataParallel (module.) and torch.compile (_orig_mod.) are taken off. Raises ExperimentError.
    """
    put_into(model, named_state(path), path)


def named_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file (`state_dict_of`), by the names that the model itself has. Raises
    ExperimentError."""
    state = state_dict_of(path)
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def file_digest(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    return sha256(read_bytes(path)).hexdigest()


def put_into(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict that comes from a file. Raises ExperimentError, the model as before, when the two do
    not fit or a value is not finite."""
    own = model.state_dict()
    others = [f"{name} of {_shape(own[name])}, not {_shape(value)}" for name, value in state.items()
              if name in own and _shape(own[name]) != _shape(value)]
    differing = [f"{title} {_some(names)}" for title, names in (
        ("it lacks", [name for name in own if name not in state]),
        ("the model has no", [name for name in state if name not in own]), ("the model has", others))
                 if names]
    if differing:
        raise ExperimentError(f"{path}: does not fit the model: {'; '.join(differing)}; name the model and "
                              "the arguments that it was trained with")
    broken = [name for name, value in state.items()
              if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ExperimentError(f"{path}: {_some(broken)} hold NaN or infinite values: expected a trained "
                              "model")
    model.load_state_dict(state)


def state_dict_of(path: Path) -> dict[str, Tensor]:
    """The state dict in a file that torch.save wrote with tensors and plain types only, by itself or inside a
    checkpoint, or in a safetensors file. Raises ExperimentError."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read ({error.strerror})") from error
    if data[8:9] == b"{":  # the header of safetensors, after its length
        return checked_state(path, _of_safetensors(path, data))
    content = loaded(path, data, "cpu")
    inside = [content[name] for name in _INSIDE if isinstance(content, Mapping)
              and isinstance(content.get(name), Mapping)]
    return checked_state(path, inside[0] if inside else content)


def _of_safetensors(path: Path, data: bytes) -> dict[str, Tensor]:
    """With packed weights (export.file) made whole. Raises ExperimentError."""
    try:
        if PACKED.encode() in data[:int.from_bytes(data[:8], "little") + 8]:
            return whole_state(load_packed(path))
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ExperimentError(f"{path}: expected a whole safetensors file, found a damaged one ({reason}): "
                              "take another copy") from error


def checked_state(path: Path, content: Any) -> dict[str, Tensor]:
    """Tensors by name, each with all its entries. Raises ExperimentError."""
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor)
                                                                  for value in content.values()):
        mapping = isinstance(content, Mapping)
        held = _some([str(name)[:40] for name in content]) if mapping else type(content).__name__
        raise ExperimentError(f"{path}: expected a state dict, by itself or under one of "
                              f"{', '.join(_INSIDE)}; found {held or 'an empty one'}")
    for name, value in content.items():
        if not isinstance(name, str):
            raise ExperimentError(f"{path}: expected names of tensors, found {name!r}")
        if value.layout != strided or value.is_meta or value.is_quantized:
            kind = "meta" if value.is_meta else "quantized" if value.is_quantized else str(value.layout)
            raise ExperimentError(f"{path}: {name} is a {kind} tensor: expected dense ones that hold their "
                                  "values")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ExperimentError(f"{path}: {name} is an expanded view of fewer numbers: save it "
                                  ".contiguous()")
    return dict(content)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
