"""`pontryagin audit`, `export`, `predict` and `data`: what is done with trained models and with data sets."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from pontryagin.cli.options import Call, Command
from pontryagin.export import detected_sets, load_packed, packed_state, save_packed, size_report, whole_state
from pontryagin.run.auditing.report import write_report
from pontryagin.run.auditing.request import AuditSettings
from pontryagin.run.auditing.run import run_audit
from pontryagin.run.data.catalog import image_set
from pontryagin.run.data.fetch import MIRRORS, check_mirrors, fetch
from pontryagin.run.data.places import CACHE, FOLDER, cache_folder, cached, inventory
from pontryagin.run.errors import ExperimentError
from pontryagin.run.figures import left_out
from pontryagin.run.files import check_target, write_bytes
from pontryagin.run.option import option
from pontryagin.run.predict import Prediction, predict
from pontryagin.run.progress import TerminalProgress
from pontryagin.run.reports.page import headline_of
from pontryagin.run.weights import state_dict_of


@dataclass(frozen=True)
class ExportSettings:
    """Pack the weights of a model that lie in {-a, a} (1 bit), {-a, 0, a} (2 bits) or a codebook of 4 or 8
    bits, with a scale a for each output row, and report the sizes. MODEL is what torch.save wrote: a state
    dict, or a file with one under 'model', such as models/METHOD-seed0.pt of a run. With --unpack MODEL is a
    packed file, and a state dict is written. Predictions are equal bit by bit.
    """

    model: Path = option("the file to read")
    out: Path | None = option("the file to write", None)
    unpack: bool = option("from a packed file to a state dict", False)
    overwrite: bool = option("replace the file to write", False)

    def target(self) -> Path:
        """The file to write. Raises ExperimentError when one of the two will not do."""
        if not self.model.is_file():
            raise ExperimentError(f"{self.model}: expected a file with a model, found "
                                  f"{'a folder' if self.model.is_dir() else 'nothing'}")
        if self.out is None:
            raise ExperimentError("--out: name the file to write")
        check_target("--out", self.out, self.overwrite)
        return self.out


@dataclass(frozen=True)
class PredictOnly:
    """What an audit may leave out."""

    predict_only: bool = option("do not measure the true costs, which takes longest", False)


def _audit(call: Call) -> bool:
    call.say(left_out())
    settings = call.make(AuditSettings, measure=not call.values["predict_only"])
    audit, interrupted = run_audit(settings, call.line, TerminalProgress(call.console))
    page = write_report(settings.out, audit)
    call.say(audit or "", headline_of(page), f"Report: {page}")
    return interrupted


def _predict(call: Call) -> bool:
    call.say(*predict(call.make(Prediction)))
    return False


def _export(call: Call) -> bool:
    settings = call.make(ExportSettings)
    (_unpack if settings.unpack else _pack)(call, settings.model, settings.target())
    return False


def _pack(call: Call, source: Path, out: Path) -> None:
    state = state_dict_of(source)
    sets = detected_sets(state)
    if not sets:
        raise ExperimentError(f"{source}: no matrix lies in a set of 1, 2, 4 or 8 bits with a scale for each "
                              "row, so nothing can be packed; train it over a discrete set first, as with "
                              "--options.admissible int4")
    packed = packed_state(state, sets)
    save_packed(out, packed)
    call.say(size_report(packed), f"{out}: {out.stat().st_size:,} bytes, {source}: {source.stat().st_size:,}")


def _unpack(call: Call, source: Path, out: Path) -> None:
    packed, buffer = load_packed(source), io.BytesIO()
    torch.save(whole_state(packed), buffer)
    write_bytes(out, buffer.getvalue())
    call.say(size_report(packed))


@dataclass(frozen=True)
class ListSettings:
    """List the data sets and where each is: in the folder of --folder or PONTRYAGIN_DATA, in the cache, in
    the folder of Debian's dataset-fashion-mnist, or not yet on this machine.
    """

    folder: Path | None = option(f"of IDX files (or {FOLDER})", None)


@dataclass(frozen=True)
class FetchSettings:
    """Fetch data sets from public mirrors into the cache. Interrupted downloads go on where they stopped;
    what arrives is verified before it is kept.
    """

    name: str = option("mnist or fashion-mnist, or both with a comma")
    mirror: str | None = option("addresses whose subfolders mnist and fashion-mnist hold the files (or "
                                f"{MIRRORS})", None)


def _list(call: Call) -> bool:
    folder = call.make(ListSettings).folder
    if folder is not None and not folder.is_dir():
        raise ExperimentError(f"--folder {folder}: expected a folder of IDX files, found "
                              f"{'a file' if folder.exists() else 'nothing'}")
    entries = list(inventory(folder))
    width = max(len(entry.name) for entry in entries)
    call.say(*(f"{entry.name:{width}}  {entry.content}: {entry.place}" for entry in entries),
             f"Cache: {cache_folder()} (another by {CACHE})")
    return False


def _fetch(call: Call) -> bool:
    settings = call.make(FetchSettings)
    chosen = [image_set(name.strip()) for name in settings.name.split(",")]
    if settings.mirror is not None:
        check_mirrors(settings.mirror)
        os.environ[MIRRORS] = settings.mirror
    for wanted in chosen:
        fetch(wanted, TerminalProgress(call.console))
        call.say(f"{wanted.name}: verified, in {cached(wanted)}")
    return False


COMMANDS = {
    "audit": Command(_audit, (AuditSettings, PredictOnly)),
    "export": Command(_export, (ExportSettings,)),
    "predict": Command(_predict, (Prediction,)),
    "data": Command(_list, (ListSettings,)),
    "data fetch": Command(_fetch, (FetchSettings,)),
}
