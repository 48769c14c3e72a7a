"""Files that are whole or not there, whatever happens while they are written."""

import os
from pathlib import Path


def write_bytes(path: Path, content: bytes | memoryview) -> Path:
    """The whole file or the old one, never half of it; its folder is made. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:  # never through a link that somebody has put there
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a crash of the machine leaves one of the two, too
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
