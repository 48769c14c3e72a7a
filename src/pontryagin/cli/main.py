"""`pontryagin`: parse, run, and turn errors into one clear line."""

import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import auto_cli

import pontryagin
from pontryagin.cli.reproduce import sine
from pontryagin.experiments.errors import ExperimentError
from pontryagin.experiments.report import ReportError
from pontryagin.problem import NonFiniteError, ProblemError

COMMANDS: dict[str, Any] = {
    "_help": "Deep learning as optimal control: training by Pontryagin's maximum principle.",
    "reproduce": {
        "_help": "Repeat an experiment of the paper (Li, Chen, Tai, E 2018), with baselines and a report.",
        "sine": sine,
    },
}
WRONG_REQUEST, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, with 2 for a wrong request, with 130 after Ctrl-C."""
    try:
        status = auto_cli(COMMANDS, args=list(sys.argv[1:] if arguments is None else arguments), as_positional=False,
                          version=pontryagin.__version__, prog="pontryagin")
    except (ExperimentError, ReportError, ProblemError, NonFiniteError) as error:
        print(f"pontryagin: {error}", file=sys.stderr)
        sys.exit(WRONG_REQUEST)
    except KeyboardInterrupt:
        print("pontryagin: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(status or 0)
