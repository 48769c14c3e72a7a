"""`pontryagin reproduce binary` and `pontryagin reproduce ternary`."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pontryagin.cli.lists import names
from pontryagin.papers.discrete.experiment import (
    METHODS,
    QUICK_EPOCHS,
    QUICK_WIDTH,
    DiscreteSettings,
    run_discrete,
)
from pontryagin.papers.discrete.paper import EPOCHS, WIDTH
from pontryagin.run.callbacks import TerminalDisplay
from pontryagin.run.errors import ExperimentError
from pontryagin.run.progress import TerminalProgress
from pontryagin.run.tables import read_summary


def add_to(experiments: Any) -> None:
    """Add both to the experiments of `reproduce`."""
    for kind, values in (("binary", "{-1, 1}"), ("ternary", "{-1, 0, 1}")):
        experiments.add_subcommand(kind, _parser(kind, values),
                                   help=f"weights in {values}: Li and Hao (2018), MNIST")


def runner(kind: str) -> Callable[[Namespace], bool]:
    """Runs one of them; whether it was interrupted."""
    return lambda options: _run(kind, options)


def _parser(kind: str, values: str) -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        f"The fully connected network of Li and Hao (ICML 2018) on MNIST, weights in {values}: their rule, "
        "E-MSA over the set, and baselines. Writes metrics.csv, weights.csv (flips and zeros of every "
        "stage), summary.json, models (as they are, and packed into bits), figures and report.html. Ctrl-C "
        "stops it after the current iteration; --resume goes on."))
    options.add_argument("--config", action="config", help="a YAML file with options")
    options.add_argument("--out", type=str, default=f"runs/{kind}",
                         help="folder for the results, new or empty")
    options.add_argument("--seeds", type=int, default=1,
                         help="runs of every method, on other weights and batches")
    options.add_argument("--epochs", type=int, default=10, help="passes over the training set")
    options.add_argument("--full", action="store_true", help=f"the paper's {EPOCHS} epochs")
    options.add_argument("--quick", action="store_true",
                         help=f"digits, {QUICK_WIDTH} units a layer, {QUICK_EPOCHS} epochs, one seed, for a "
                              "first look")
    options.add_argument("--methods", type=str, default="all",
                         help=f"all, or names with commas: {', '.join(METHODS[kind])}")
    options.add_argument("--dataset", type=str, default="mnist", help="mnist, fashion-mnist or digits")
    options.add_argument("--data", type=str | None, default=None,
                         help="folder of the IDX files (or PONTRYAGIN_DATA)")
    options.add_argument("--width", type=int, default=WIDTH, help="units of each of the three hidden layers")
    options.add_argument("--random-normalization", action="store_true", help=(
        "scales and shifts of the normalizations begin at random, as in the authors' code, not at 1 and 0"))
    options.add_argument("--rates", type=dict[str, float], default={},
                         help="by method, such as --rates.binaryconnect 3e-3")
    options.add_argument("--options", type=dict[str, dict[str, Any]], default={},
                         help="by method, as --options.li-hao.rho 0.3")
    options.add_argument("--tune", type=int, default=0,
                         help="iterations of a tuning run of each rate of a grid; 0: none")
    options.add_argument("--threads", type=int, default=1, help="of torch")
    options.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    options.add_argument("--resume", action="store_true",
                         help="go on with the run in the folder, with its own settings")
    return options


def _run(kind: str, options: Namespace) -> bool:
    from pontryagin.papers.discrete.report import headline, write_report

    if options.quick and options.full:
        raise ExperimentError("--quick and --full: give one of them")
    settings = DiscreteSettings(
        kind, Path(options.out), options.dataset, options.data, options.seeds,
        EPOCHS if options.full else options.epochs, options.width, options.random_normalization,
        names(options.methods), options.threads, _plain(options.options), _plain(options.rates), options.tune,
        options.overwrite, options.resume)
    if options.quick:
        settings = settings.quick()
    console = Console()
    folder, interrupted = run_discrete(settings, shlex.join(["pontryagin", *sys.argv[1:]]),
                                       TerminalDisplay(console), TerminalProgress(console))
    report = write_report(folder)
    for line in headline(read_summary(folder / "summary.json")):
        console.print(line, soft_wrap=True, highlight=False)
    if interrupted:
        console.print("Interrupted, with a checkpoint; go on with --resume.")
    console.print(f"Report: {report}", soft_wrap=True, highlight=False)
    return interrupted


def _plain(values: Any) -> dict[str, Any]:
    return {name: _plain(value) if isinstance(value, (dict, Namespace)) else value for name,
            value in dict(values).items()}
