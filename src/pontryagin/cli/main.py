"""`pontryagin`: parse, run, and turn errors into one clear line."""

import errno
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

import pontryagin
from pontryagin.cli import audit, bench, compare, data, export, predict, reproduce, train
from pontryagin.distributed import launched
from pontryagin.problem import NonFiniteError, ProblemError
from pontryagin.run.errors import ExperimentError
from pontryagin.run.processes import processes

WRONG_REQUEST, NO_ROOM, INTERRUPTED = 2, 74, 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TOGETHER = ("train", "compare", "reproduce")
"""Commands that torchrun may start in several processes."""


def parser() -> ArgumentParser:
    """The whole command line. Every command takes --config FILE (YAML) and --print_config too."""
    top = ArgumentParser(allow_abbrev=False, prog="pontryagin", version=pontryagin.__version__,
                         description="Deep learning as optimal control: training by Pontryagin's maximum "
                                     "principle.")
    commands = top.add_subcommands(dest="command")
    train.add_to(commands)
    compare.add_to(commands)
    predict.add_to(commands)
    reproduce.add_to(commands)
    bench.add_to(commands)
    data.add_to(commands)
    export.add_to(commands)
    audit.add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, with 2 for a wrong request, with 74 when a disk is full, with 130
    after Ctrl-C.

    Started by torchrun, the processes work together. Then what ends one of them is left to torchrun, which
    ends the others and names the first cause.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    settings = parser().parse_args(given)
    if launched():
        from torch.distributed.elastic.multiprocessing.errors import record

        sys.exit(INTERRUPTED if record(_together)(settings, given) else 0)
    try:
        status = _dispatch(settings, given)
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
    sys.exit(INTERRUPTED if status else 0)


def _together(settings: Namespace, arguments: Sequence[str]) -> bool:
    """The chosen command, in one of several processes; whether it was interrupted."""
    if settings.command not in TOGETHER:
        raise ExperimentError(f"{settings.command} is run by one process: start it without torchrun")
    with processes():
        return _dispatch(settings, arguments)


def _dispatch(settings: Namespace, arguments: Sequence[str]) -> bool:
    """Run the chosen command; whether it was interrupted."""
    command, options = settings.command, settings[settings.command]
    if command in ("train", "compare"):
        named = parser().parse_args(arguments, defaults=False)[command]
        return {"train": train.run, "compare": compare.run}[command](options, named, arguments)
    commands = {"predict": predict.run, "reproduce": reproduce.run, "bench": bench.run, "data": data.run,
                "export": export.run,
                "audit": audit.run}
    return commands[command](options)
