"""A command line from its arguments to the status of the process: errors become one clear line."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from threading import Timer
from types import FrameType
from typing import Any

from pontryagin.cli.commands import called
from pontryagin.cli.options import Call
from pontryagin.run.errors import ExperimentError
from pontryagin.run.exit_status import INTERRUPTED, NO_ROOM, end_of, say_last

TOGETHER = ("train", "compare", "reproduce")
"""Commands that torchrun may start in several processes."""
_SOON = 0.05
"""Seconds."""


def status_of(arguments: list[str], signals: Sequence[signal.Signals] = ()) -> int:
    """What the process ends with; signals: those that are a KeyboardInterrupt for the command."""
    before = sys.unraisablehook
    try:
        path, call = called(arguments)
        for number in signals:
            signal.signal(number, _interrupt)
        sys.unraisablehook = partial(_again, before) if signals else before
        return INTERRUPTED if _done(path.split()[0], call) else 0
    except SystemExit as ended:  # --help and its like
        return int(ended.code or 0)
    except BrokenPipeError:  # whoever read what is printed has gone
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 # for what Python flushes at its end
        return NO_ROOM
    except (Exception, KeyboardInterrupt) as error:
        if (end := end_of(error)) is None:
            raise
        return say_last(*end)
    finally:
        sys.unraisablehook = before


def _done(name: str, call: Call) -> bool:
    """The command; whether it was interrupted."""
    from pontryagin.distributed import launched

    return _together(name, call) if launched() else call.command.run(call)


def _together(name: str, call: Call) -> bool:
    """The command, in one of the processes that torchrun has started and that work together; SIGTERM stops it
    when torchrun is killed. torchrun ends the others when one ends, and shows what that one has said."""
    from pontryagin.run.ending import end_with_parent
    from pontryagin.run.processes import processes

    if name not in TOGETHER:
        raise ExperimentError(f"{name} is run by one process: start it without torchrun")
    end_with_parent(signal.SIGTERM)
    with processes():
        return call.command.run(call)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _again(before: Callable[[Any], Any], ignored: Any) -> None:
    """An interrupt that came where Python lets no exception out, as in a __del__, comes once more. before:
    the hook for all else."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        soon = Timer(_SOON, os.kill, (os.getpid(), signal.SIGINT))
        soon.daemon = True
        soon.start()
    else:
        before(ignored)
