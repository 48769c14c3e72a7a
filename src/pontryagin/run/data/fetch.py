"""Data sets from public mirrors into the cache: verified before they are in it."""

import hashlib
import os
from math import prod
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from torch import Tensor

from pontryagin.run.data.catalog import IdxFile, ImageSet
from pontryagin.run.data.download import DownloadError, Patience, download, is_address
from pontryagin.run.data.idx import is_gzip, read_idx
from pontryagin.run.data.places import CACHE, FOLDER, cached, find
from pontryagin.run.errors import ExperimentError, shown
from pontryagin.run.progress import Progress, TerminalProgress

MIRRORS = "PONTRYAGIN_MIRRORS"


def mirrors(wanted: ImageSet) -> tuple[str, ...]:
    """Addresses of folders with the files: the public ones, or a subfolder of the data set's name at each
    address in PONTRYAGIN_MIRRORS, with spaces between; if that is empty, nothing is fetched."""
    own = os.environ.get(MIRRORS)
    return wanted.mirrors if own is None else tuple(f"{base.rstrip('/')}/{wanted.name}/"
                                                    for base in own.split())


def check_mirrors(addresses: str) -> None:
    """Of the option: addresses with spaces between. Raises ExperimentError."""
    for address in addresses.split():
        if not is_address(address):
            raise ExperimentError("--mirror: expected addresses as https://HOST/FOLDER, found "
                                  f"{shown(address)}")


def fetch(wanted: ImageSet, progress: Progress | None = None,
          patience: Patience | None = None) -> list[Tensor]:
    """The content of the files, out of the cache, into which what is missing or wrong is fetched first.

    A file enters the cache whole, once its uncompressed content has the right MD5. An interrupted download
    goes on where it stopped. Raises ExperimentError, with every other way to get the files, when no mirror
    gives one.
    """
    shown, folder = progress or TerminalProgress(Console(stderr=True)), cached(wanted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # one process at a time, others wait
            return [_obtain(wanted, file, folder, shown, patience or Patience()) for file in wanted.files]
    except OSError as error:
        raise ExperimentError(f"{folder}: the cache cannot be written ({error.strerror or error}); name "
                              f"another by {CACHE}, or a folder that has the files by {FOLDER}") from error


def ways(wanted: ImageSet) -> str:
    """Every way to get a data set, for people who lack it."""
    names = ", ".join(file.name for file in wanted.files)
    package = f"{wanted.package}; " if wanted.package else ""
    return (f"get {wanted.name} by one of: `pontryagin data fetch {wanted.name}` where there is a network, "
            f"with {MIRRORS} for mirrors of your own; {package}a folder with {names}, plain or .gz, named by "
            f"--folder (train, compare, audit: --data-args.folder) or {FOLDER}; or use digits, which need no "
            "files")


def _obtain(wanted: ImageSet, file: IdxFile, folder: Path, progress: Progress, patience: Patience) -> Tensor:
    held = find(folder, file)
    if held:
        try:
            return read_idx(held, file)
        except ExperimentError as error:
            progress.say(f"{error}: fetching it again")
            held.unlink(missing_ok=True)
    reasons = []
    for mirror in mirrors(wanted):
        url = mirror + file.name + ".gz"
        partial = folder / f".{file.name}.{hashlib.sha256(url.encode()).hexdigest()[:12]}.part"
        try:
            content = _fetch_file(url, partial, file, progress, patience)
        except DownloadError as error:
            reasons.append(str(error))
            progress.say(str(error))
            if partial.exists() and not partial.stat().st_size:
                partial.unlink()
            continue
        _keep(partial, folder / (file.name + (".gz" if is_gzip(partial) else "")))
        return content
    tried = "; ".join(reasons) or f"{MIRRORS} names no mirror"
    raise ExperimentError(f"{wanted.name}: {file.name} is not on this machine and could not be fetched "
                          f"({tried}); {ways(wanted)}")


def _fetch_file(url: str, partial: Path, file: IdxFile, progress: Progress, patience: Patience) -> Tensor:
    """The verified content, then in `partial`. What was continued and is wrong is fetched anew, whole."""
    largest = prod(file.shape) + (1 << 16)
    host = url.partition("//")[2].partition("/")[0]
    title = f"{file.name} from {host}, KiB"
    while True:
        continued = partial.exists() and partial.stat().st_size > 0
        with partial.open("ab") as stream:
            download(url, stream, largest, patience, lambda length: progress.task(title, length))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            return read_idx(partial, file)
        except ExperimentError as error:
            partial.unlink()
            if not continued:
                raise DownloadError(f"{url}: what came is wrong: {error}") from error


def _keep(partial: Path, path: Path) -> None:
    partial.replace(path)
    for other in path.parent.glob(f".{path.name.removesuffix('.gz')}.*.part"):
        other.unlink(missing_ok=True)
