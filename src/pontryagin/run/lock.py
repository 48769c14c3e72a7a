"""One process a folder."""

from pathlib import Path
from types import TracebackType
from typing import IO

from pontryagin.run.errors import ExperimentError

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is guarded
    fcntl = None  # type: ignore[assignment]


class Lock:
    """Held on out/.lock until the process ends, however it ends."""

    def __init__(self, out: Path) -> None:
        self._path, self._file = out / ".lock", None
        if self._path.exists():
            self.take()

    _file: IO[bytes] | None

    def take(self) -> None:
        """Once the folder is there. Raises ExperimentError when another process has it."""
        if self._file is not None or fcntl is None:
            return
        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise ExperimentError(f"--out {self._path.parent}: another process is running in this folder; "
                                  "wait for it, stop it, or name another folder") from error
        self._file = file

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
