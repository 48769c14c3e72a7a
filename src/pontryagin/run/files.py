"""The folder of a run: made safely, for one process, and written so that nothing measured is lost."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import ENOENT
from itertools import count
from math import isfinite
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from filelock import FileLock, Timeout

from pontryagin.diagnostics.files import write_bytes
from pontryagin.run.content import read_bytes
from pontryagin.run.errors import ExperimentError

_MARKS = {"metrics.csv", "runs.csv", "stages.csv", "summary.json", "checkpoint.pt", "checkpoint.previous.pt"}
"""A folder with one of these holds a run."""
_FOLDERS = {"figures", "models", "tensorboard"}
_WRITTEN = {".csv", ".json", ".html", ".tmp"}
_MOST = 1 << 16
"""Characters of rows that wait to be written: some hundred rows, one call of the system."""


def prepare(out: Path, overwrite: bool) -> Path:
    """Make `out` ready for a run, or refuse before any work is done.

    A folder with the results of a run is refused unless `overwrite`, and then only the files of a run are
    removed; one in which a run has only begun loses nothing. Any other folder with something in it is refused
    always. Raises ExperimentError.
    """
    try:
        held = names_in(out)
        if held and not _MARKS & set(held):
            raise ExperimentError(f"--out {out}: expected a new or empty folder, or that of a run; found "
                                  f"{held[0]!r} and {len(held) - 1} others; name another folder")
        if not overwrite and has_results(out):
            raise ExperimentError(f"--out {out} already holds a run; name another folder, or add --overwrite "
                                  "to replace it")
        _make(out)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ExperimentError(f"--out {out}: cannot be written ({error.strerror}); name a folder that "
                              "can") from error
    for name in held:
        _remove_run_file(out / name)
    return out


def _make(out: Path) -> None:
    """The folder with those above it, or none of them. Raises OSError."""
    new = [path for path in (out, *out.parents) if not path.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise


def check_target(option: str, path: Path, overwrite: bool) -> None:
    """That a file may be written there. Raises ExperimentError."""
    if path.is_dir() or (path.exists() and not overwrite):
        raise ExperimentError(f"{option} {path} exists already; name another file"
                              + ("" if path.is_dir() else ", or add --overwrite"))
    if not path.parent.is_dir():
        raise ExperimentError(f"{option} {path}: its folder does not exist")


def has_results(out: Path) -> bool:
    """Whether something that was measured is in the folder: rows of a table, models."""
    return any(path.read_bytes().count(b"\n") > 1 for path in out.glob("*.csv") if path.is_file()) or any(
        (out / "models").glob("*"))


def free_folder(out: Path) -> Path:
    """The folder, or the first of FOLDER-2, FOLDER-3, ... that a run may be written into."""
    return next(path for path in _numbered(out) if _is_free(path))


def last_folder(out: Path) -> Path:
    """The last of FOLDER, FOLDER-2, ... that there is, or the first."""
    before = out
    for path in _numbered(out):
        if not path.exists():
            break
        before = path
    return before


def _is_free(out: Path) -> bool:
    held = names_in(out)
    if held and (not _MARKS & set(held) or has_results(out)):
        return False
    lock = FileLock(out / ".lock")
    if not Path(lock.lock_file).exists():
        return True
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def _numbered(out: Path) -> Iterator[Path]:
    yield out
    yield from (out.with_name(f"{out.name}-{number}") for number in count(2))


def names_in(out: Path) -> list[str]:
    """The names in a folder, but for what is passing; none where there is no folder. Raises
    ExperimentError for a file in its place, and for files and folders in each other's place."""
    if not out.exists():
        return []
    if not out.is_dir():
        raise ExperimentError(f"--out {out}: expected a folder, found a file; name another one")
    held = sorted(path.name for path in out.iterdir() if not _is_passing(path.name))
    for path in (out / name for name in held):
        written = path.suffix in _WRITTEN or path.name in _MARKS
        if written and path.exists() and not path.is_file():
            found = "a folder" if path.is_dir() else "a device or a pipe"
            raise ExperimentError(f"{path}: is {found} where a run has a file; remove it, or name another "
                                  "--out")
        if path.name in _FOLDERS and not path.is_dir():
            raise ExperimentError(f"{path}: is a file where a run has a folder; remove it, or name another "
                                  "--out")
    return held


def sweep(out: Path) -> None:
    """Remove what a killed process left half-written under a name of its own."""
    for path in out.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The whole file in UTF-8, or the old one."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented, with null for what is not a finite number, and paths as text."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


class Table:
    """A csv file that grows by whole rows; every row is in the file as soon as `flush` has been called.

    keep: go on after so many bytes of the file that is there, as `settle` gave them, and drop what follows;
    by default the file is new. Raises ExperimentError when the file is not the one that is to be continued.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: int | None = None) -> None:
        self.columns, self._path = tuple(columns), path.absolute()
        self._rows = io.StringIO()
        self._writer = csv.writer(self._rows, lineterminator="\n")
        if keep is None:
            self._writer.writerow(columns)
            with ExitStack() as stack:
                self._file = stack.enter_context(path.open("wb", buffering=0))
                self.flush()
                stack.pop_all()
            return
        header = (",".join(columns) + "\n").encode()
        found = read_bytes(path, len(header))
        if found != header or path.stat().st_size < keep:
            raise ExperimentError(f"{path}: expected the table that the checkpoint goes on from, {keep} "
                                  f"bytes with the columns {', '.join(columns)}; it has been changed: start "
                                  "anew with --overwrite")
        os.truncate(path, keep)
        self._file = path.open("ab", buffering=0)

    def add(self, *values: Any) -> None:
        """One row; numbers with all their digits, None as an empty cell, truth as 1 and 0."""
        if len(values) != len(self.columns):
            raise ValueError(f"expected {len(self.columns)} values for {self.columns}, found {len(values)}")
        self._writer.writerow([_cell(value) for value in values])
        if self._rows.tell() > _MOST:
            self.flush()

    def add_all(self, rows: Iterable[Sequence[Any]]) -> None:
        """Several rows."""
        for row in rows:
            self.add(*row)

    def flush(self) -> None:
        """Hand the rows over to the system."""
        waiting = memoryview(self._rows.getvalue().encode())
        self._check_place()
        self._rows.seek(0)
        self._rows.truncate()
        while waiting:
            waiting = waiting[self._file.write(waiting):]

    def _check_place(self) -> None:
        """Raises OSError when the file has been moved or removed, which a handle to it does not notice."""
        here, there = os.fstat(self._file.fileno()), os.stat(self._path)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise FileNotFoundError(ENOENT, "is not the file any more that was being written",
                                    str(self._path))

    def settle(self) -> int:
        """Flush onto the disk; how many bytes are there now."""
        self.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


def _cell(value: Any) -> Any:
    """csv writes None as an empty cell, and floats with all their digits. A text that spreadsheets would take
    for a formula begins with an apostrophe."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return int(value) if isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not isfinite(value) else value


def _is_passing(name: str) -> bool:
    """A name of a file that is being written, or of the lock."""
    return name == ".lock" or (name.startswith(".") and name.endswith(".tmp"))


def _remove_run_file(path: Path) -> None:
    """A link is removed, and what it leads to left alone."""
    if path.is_symlink():
        path.unlink()
    elif path.name == "models":
        for model in (*path.glob("*.pt"), *path.glob("*.packed")):
            model.unlink()
    elif path.name in _FOLDERS:
        shutil.rmtree(path)
    elif path.is_file() and (path.suffix in _WRITTEN or path.name.startswith("checkpoint.")):
        path.unlink()


@contextmanager
def opened(out: Path, overwrite: bool) -> Iterator[Path]:
    """The folder, ready for a run (`prepare`) and of this process alone. Raises ExperimentError."""
    lock = FileLock(out / ".lock", thread_local=False)
    try:
        if Path(lock.lock_file).exists():
            take(lock)
        prepare(out, overwrite)
        take(lock)
        yield out
    finally:
        lock.release(force=True)


def take(lock: FileLock) -> None:
    """A run folder's lock, until it is released or the process ends, however it ends. Raises ExperimentError
    when another process has it."""
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ExperimentError(f"--out {Path(lock.lock_file).parent}: another process is running in this "
                              "folder; wait for it, stop it, or name another folder") from error
