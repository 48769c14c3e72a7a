"""A command line from its arguments to the status of the process: errors become one clear line."""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from textwrap import fill
from types import FrameType

from pontryagin.cli.commands import called
from pontryagin.cli.options import Call
from pontryagin.errors import NonFiniteError, ProblemError
from pontryagin.run.errors import ExperimentError

NOT_FINITE, WRONG_REQUEST, NO_ROOM, INTERRUPTED = 1, 2, 74, 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HALF = 400
"""Characters of a line at its beginning and at its end, where it says what to do."""
TOGETHER = ("train", "compare", "reproduce")
"""Commands that torchrun may start in several processes."""


def status_of(arguments: list[str], signals: Sequence[signal.Signals] = ()) -> int:
    """What the process ends with; signals: those that are a KeyboardInterrupt for the command.

    Started by torchrun, the processes work together. Then what ends one of them is left to torchrun, which
    ends the others and names the first cause.
    """
    try:
        path, call = called(arguments)
        for number in signals:
            signal.signal(number, _interrupt)
        return INTERRUPTED if _done(path.split()[0], call) else 0
    except SystemExit as ended:  # --help and its like
        return int(ended.code or 0)
    except NonFiniteError as error:
        return _said(str(error), NOT_FINITE)
    except (ExperimentError, ProblemError) as error:
        return _said(str(error), WRONG_REQUEST)
    except BrokenPipeError:  # whoever read what is printed has gone
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 # for what Python flushes at its end
        return NO_ROOM
    except OSError as error:
        return _said(_unwritten(error), NO_ROOM)
    except KeyboardInterrupt:
        return _said("interrupted", INTERRUPTED)


def _done(name: str, call: Call) -> bool:
    """The command; whether it was interrupted."""
    from pontryagin.distributed import launched

    if not launched():
        return call.command.run(call)
    from torch.distributed.elastic.multiprocessing.errors import record

    return bool(record(_together)(name, call))


def _together(name: str, call: Call) -> bool:
    """The command, in one of several processes; SIGTERM stops it when torchrun is killed."""
    from pontryagin.run.ending import end_with_parent
    from pontryagin.run.processes import processes

    if name not in TOGETHER:
        raise ExperimentError(f"{name} is run by one process: start it without torchrun")
    end_with_parent(signal.SIGTERM)
    with processes():
        return call.command.run(call)


def _unwritten(error: OSError) -> str:
    if error.errno in FULL:
        return (f"the disk is full, or a file is larger than it may be ({error}); what had been written "
                "before is whole: make room, then start again, with --resume where the command takes it")
    return (f"{error.filename or 'a file'}: {error.strerror or error}: it cannot be read or written, or its "
            "folder has been moved or removed; what had been written before is whole")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _said(text: str, status: int) -> int:
    line = " ".join(text.split())
    if len(line) > 2 * _HALF:  # words that somebody gave, or that a library said
        line = f"{line[:_HALF]} ... {line[-_HALF:]}"
    line = f"pontryagin: {line}"
    if sys.stderr.isatty():
        line = fill(line, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr)
    return status
