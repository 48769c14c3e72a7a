"""What a process ends with: a line, and a status."""

import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path
from textwrap import fill

from pontryagin.errors import LostProcessError, NonFiniteError, ProblemError
from pontryagin.run.errors import ExperimentError

NOT_FINITE, WRONG_REQUEST, NO_ROOM, LOST, INTERRUPTED = 1, 2, 74, 75, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HALF = 400
"""Characters of a line at its beginning and at its end, where it says what to do."""


def end_of(error: BaseException) -> tuple[str, int] | None:
    """The line and the status that an error comes to; None for a fault of this package."""
    if isinstance(error, NonFiniteError):
        return str(error), NOT_FINITE
    if isinstance(error, (ExperimentError, ProblemError)):
        return str(error), WRONG_REQUEST
    if isinstance(error, LostProcessError):
        return (f"{error}; what had been written before is whole: start again, with --resume where the "
                "command takes it"), INTERRUPTED if error.interrupted else LOST
    if isinstance(error, OSError):
        return _unwritten(error), NO_ROOM
    if _no_memory(error):
        return ("there is not enough memory for this; what had been written before is whole: take a smaller "
                "model, smaller batches or a smaller file"), NO_ROOM
    return ("interrupted", INTERRUPTED) if isinstance(error, KeyboardInterrupt) else None


def _no_memory(error: BaseException) -> bool:
    """Python's, or torch's of a GPU and of CPUs, of which the one has a class of its own."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error))


def _unwritten(error: OSError) -> str:
    if error.errno in _FULL:
        return (f"the disk is full, or a file is larger than it may be ({error}); what had been written "
                "before is whole: make room, then start again, with --resume where the command takes it")
    return (f"{error.filename or 'a file'}: {error.strerror or error}: it cannot be read or written, or its "
            "folder has been moved or removed; what had been written before is whole")


def say_last(text: str, status: int) -> int:
    """The line, with the rank where there are several, and to torchrun, which shows it in the place of a
    traceback. Returns the status."""
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1]
                   for letter in " ".join(text.split()))
    if len(line) > 2 * _HALF:  # words that somebody gave, or that a library said
        line = f"{line[:_HALF]} ... {line[-_HALF:]}"
    several = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE") != "1"
    rank = f"rank {os.environ.get('RANK')}: " if several else ""
    told = f"pontryagin: {rank}{line}"
    if sys.stderr.isatty():
        told = fill(told, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    print(told, file=sys.stderr, flush=True)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        said = {"message": line, "extraInfo": {"py_callstack": line, "timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": said}), encoding="utf-8")
    return status
