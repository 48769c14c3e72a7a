"""The content of files that users name, which must end."""

import errno
import stat
from pathlib import Path


def check_ends(path: Path) -> Path:
    """A file or a folder, or what a shell has put in the place of a file (/dev/fd/63). Raises OSError for
    devices and for named pipes, of which nobody knows whether they end."""
    mode = path.stat().st_mode
    piped = stat.S_ISFIFO(mode) and path.parts[1:2] in (("dev",), ("proc",))
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or piped):
        raise OSError(errno.EINVAL, "it is no file but a device or a pipe", str(path))
    return path


def read_bytes(path: Path, most: int = -1) -> bytes:
    """All of a file, or its first bytes. Raises OSError."""
    with check_ends(path).open("rb") as file:
        return file.read(most)
