"""`pontryagin`: parse, run, and turn errors into one clear line."""

import errno
import sys
from collections.abc import Sequence

from pontryagin.cli.commands import called
from pontryagin.cli.options import Call
from pontryagin.run.errors import ExperimentError

WRONG_REQUEST, NO_ROOM, INTERRUPTED = 2, 74, 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TOGETHER = ("train", "compare", "reproduce")
"""Commands that torchrun may start in several processes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, with 2 for a wrong request, with 74 when a disk is full, with 130
    after Ctrl-C.

    Started by torchrun, the processes work together. Then what ends one of them is left to torchrun, which
    ends the others and names the first cause.
    """
    path, call = called(list(sys.argv[1:] if arguments is None else arguments))
    from pontryagin.distributed import launched
    from pontryagin.problem import NonFiniteError, ProblemError

    if launched():
        from torch.distributed.elastic.multiprocessing.errors import record

        sys.exit(INTERRUPTED if record(_together)(path.split()[0], call) else 0)
    try:
        interrupted = call.command.run(call)
    except (ExperimentError, ProblemError, NonFiniteError) as error:
        print(f"pontryagin: {error}", file=sys.stderr)
        sys.exit(WRONG_REQUEST)
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f"pontryagin: the disk is full, or a file is larger than it may be ({error}); what had been "
              "written before is whole: make room, then start again, with --resume where the command takes "
              "it", file=sys.stderr)
        sys.exit(NO_ROOM)
    except KeyboardInterrupt:
        print("pontryagin: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(INTERRUPTED if interrupted else 0)


def _together(name: str, call: Call) -> bool:
    """The command, in one of several processes; whether it was interrupted."""
    from pontryagin.run.processes import processes

    if name not in TOGETHER:
        raise ExperimentError(f"{name} is run by one process: start it without torchrun")
    with processes():
        return call.command.run(call)
