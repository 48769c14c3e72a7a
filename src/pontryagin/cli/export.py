"""`pontryagin export`: a trained model with discrete weights as a file of packed bits, and back."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from torch import Tensor

from pontryagin.export import detected_sets, load_packed, packed_state, save_packed, size_report, whole_state
from pontryagin.run.errors import ExperimentError
from pontryagin.run.files import write_bytes


def add_to(commands: Any) -> None:
    """Add `export` to the subcommands of the program."""
    own = ArgumentParser(allow_abbrev=False, description=(
        "Pack the weights of a model that lie in {-a, a} (1 bit) or {-a, 0, a} (2 bits), with a scale a for "
        "each output row, and report the sizes. MODEL is what torch.save wrote: a state dict, or a file with "
        "one under 'model', such as models/METHOD-seed0.pt of a run. With --unpack MODEL is a packed file, "
        "and a state dict is written. Predictions are equal bit by bit."))
    own.add_argument("model", type=str, help="the file to read")
    own.add_argument("--out", type=str, help="the file to write")
    own.add_argument("--unpack", action="store_true", help="from a packed file to a state dict")
    own.add_argument("--overwrite", action="store_true", help="replace the file to write")
    commands.add_subcommand("export", own, help="pack discrete weights into bits")


def run(settings: Namespace) -> bool:
    """Pack or unpack; never interrupted halfway."""
    source = Path(settings.model)
    if not source.is_file():
        raise ExperimentError(f"{source}: expected a file with a model, found "
                              f"{'a folder' if source.is_dir() else 'nothing'}")
    if settings.out is None:
        raise ExperimentError("--out: name the file to write")
    out = Path(settings.out)
    if out.exists() and not (settings.overwrite and out.is_file()):
        raise ExperimentError(f"--out {out} exists already; name another file"
                              + ("" if out.is_dir() else ", or add --overwrite"))
    if not out.parent.is_dir():
        raise ExperimentError(f"--out {out}: its folder does not exist")
    (_unpack if settings.unpack else _pack)(source, out, Console())
    return False


def _pack(source: Path, out: Path, console: Console) -> None:
    state = _state_dict(source)
    sets = detected_sets(state)
    if not sets:
        raise ExperimentError(f"{source}: no matrix has entries of one size (and 0) in each row, so nothing "
                              "can be packed; train it over a discrete set first")
    packed = packed_state(state, sets)
    save_packed(out, packed)
    console.print(str(size_report(packed)), highlight=False, soft_wrap=True, markup=False)
    console.print(f"{out}: {out.stat().st_size:,} bytes, {source}: {source.stat().st_size:,}",
                  highlight=False, soft_wrap=True, markup=False)


def _unpack(source: Path, out: Path, console: Console) -> None:
    packed = load_packed(source)
    buffer = io.BytesIO()
    torch.save(whole_state(packed), buffer)
    write_bytes(out, buffer.getvalue())
    console.print(str(size_report(packed)), highlight=False, soft_wrap=True, markup=False)


def _state_dict(source: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(source):
        raise ExperimentError(f"{source}: cannot be loaded: it is not what torch.save writes (a zip archive)")
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ExperimentError(f"{source}: cannot be loaded as tensors and plain types ({reason})") from error
    state = found.get("model", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor)
                                                           for value in state.values()):
        raise ExperimentError(f"{source}: expected a state dict of tensors, or one under 'model'")
    return dict(state)
