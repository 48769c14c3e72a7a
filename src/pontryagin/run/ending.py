"""Processes that end with the one that has started them, however that one ends; on Linux.

    python -m pontryagin.run.ending PARENT MODULE ARGUMENTS

runs a module, such as torch.distributed.run, so that the process PARENT does not leave it behind.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that this process gets when its parent ends."""


def end_with_parent(number: signal.Signals = signal.SIGKILL, parent: int | None = None) -> None:
    """Get this signal as soon as the parent has ended: also if it has already, where it is given by its
    number. Elsewhere than on Linux nothing."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    end_with_parent(signal.SIGTERM, int(sys.argv[1]))  # torchrun ends its own processes on that
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
