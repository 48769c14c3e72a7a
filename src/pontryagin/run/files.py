"""The folder of a run: made safely, for one process, and written so that nothing measured is lost."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pontryagin.diagnostics.files import write_bytes
from pontryagin.run.errors import ExperimentError

_MARKS = {"metrics.csv", "summary.json", "checkpoint.pt", "checkpoint.previous.pt"}
"""A folder with one of these holds a run."""
_MOST = 1 << 16
"""Characters of rows that wait to be written: some hundred rows, one call of the system."""


def prepare(out: Path, overwrite: bool) -> Path:
    """Make `out` ready for a run, or refuse before any work is done.

    A folder that holds a run (a metrics.csv, summary.json or checkpoint.pt) is refused unless `overwrite`,
    and then only the files of a run are removed. Any other folder with something in it is refused always.
    Raises ExperimentError.
    """
    if out.exists() and not out.is_dir():
        raise ExperimentError(f"--out {out}: expected a folder, found a file; name another one")
    held = sorted(path.name for path in out.iterdir() if not _is_passing(path.name)) if out.is_dir() else []
    if held:
        if not _MARKS & set(held):
            raise ExperimentError(f"--out {out}: expected a new or empty folder, or that of a run; found "
                                  f"{held[0]!r} and {len(held) - 1} others; name another folder")
        if not overwrite:
            raise ExperimentError(f"--out {out} already holds a run; name another folder, or add --overwrite "
                                  "to replace it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable.tmp"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ExperimentError(f"--out {out}: cannot be written ({error.strerror}); name a folder that "
                              "can") from error
    for name in held:
        _remove_run_file(out / name)
    return out


def sweep(out: Path) -> None:
    """Remove what a killed process left half-written under a name of its own."""
    for path in out.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The whole file in UTF-8, or the old one."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented, with null for what is not a finite number."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


class Table:
    """A csv file that grows by whole rows; every row is in the file as soon as `flush` has been called.

    keep: go on after so many bytes of the file that is there, as `settle` gave them, and drop what follows;
    by default the file is new. Raises ExperimentError when the file is not the one that is to be continued.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: int | None = None) -> None:
        self.columns = tuple(columns)
        self._rows = io.StringIO()
        self._writer = csv.writer(self._rows, lineterminator="\n")
        if keep is None:
            self._file = path.open("wb", buffering=0)
            self._writer.writerow(columns)
            self.flush()
            return
        header = (",".join(columns) + "\n").encode()
        with path.open("rb") as file:
            found = file.read(len(header))
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
        self._rows.seek(0)
        self._rows.truncate()
        while waiting:
            waiting = waiting[self._file.write(waiting):]

    def settle(self) -> int:
        """Flush onto the disk; how many bytes are there now."""
        self.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._file.close()


def _cell(value: Any) -> Any:
    """csv writes None as an empty cell, and floats with all their digits."""
    return int(value) if isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _is_passing(name: str) -> bool:
    """A name of a file that is being written, or of the lock."""
    return name == ".lock" or (name.startswith(".") and name.endswith(".tmp"))


def _remove_run_file(path: Path) -> None:
    if path.name in {"figures", "tensorboard"} and path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.name == "models" and path.is_dir() and not path.is_symlink():
        for model in (*path.glob("*.pt"), *path.glob("*.packed")):
            model.unlink()
    elif path.is_file() and (path.suffix in {".csv", ".json", ".html", ".tmp"}
                             or path.name.startswith("checkpoint.")):
        path.unlink()


def take(lock: FileLock) -> None:
    """A run folder's lock, until it is released or the process ends, however it ends. Raises ExperimentError
    when another process has it."""
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ExperimentError(f"--out {Path(lock.lock_file).parent}: another process is running in this "
                              "folder; wait for it, stop it, or name another folder") from error
