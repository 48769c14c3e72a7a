"""The command line."""

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0; with 1 when numbers that are not finite ended a training; with 2
    for a wrong request; with 74 when files cannot be written or memory is full; with 75 when another process
    of the run has ended or does not answer; with 130 after Ctrl-C or SIGTERM.

    Until the command begins, Ctrl-C ends the process at once: modules are being imported, which take no
    exception in their middle, and nothing has been written.
    """
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, _leave) for number in signals}
    from pontryagin.cli.program import status_of

    try:
        status = status_of(list(sys.argv[1:] if arguments is None else arguments), signals)
        _deaf(before, arguments is None)
    except KeyboardInterrupt:  # one more, while the last word was said
        _deaf(before, arguments is None)
        status = 130
    sys.exit(status)


def _deaf(before: Mapping[signal.Signals, Any], last: bool) -> None:
    """A program that has said its last word is not interrupted any more."""
    for number, handler in before.items():
        signal.signal(number, signal.SIG_IGN if last else handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"pontryagin: interrupted\n")
    os._exit(130)
