"""`pontryagin reproduce ...`: one command a figure of the paper."""

import shlex
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pontryagin.cli import reproduce_certificate, reproduce_discrete, reproduce_images
from pontryagin.cli.lists import names
from pontryagin.papers.images.paper import FIGURES
from pontryagin.papers.sine.experiment import SineSettings, run_sine
from pontryagin.papers.sine.methods import METHODS
from pontryagin.papers.sine.report import draw_figures, write_report
from pontryagin.run.errors import ExperimentError, need
from pontryagin.run.processes import present
from pontryagin.run.progress import TerminalProgress


def add_to(commands: Any) -> None:
    """Add `reproduce` and its experiments to the subcommands of the program."""
    own = ArgumentParser(
        allow_abbrev=False,
        description="Repeat an experiment of the literature on the maximum principle, beside baselines.")
    commands.add_subcommand("reproduce", own, help="repeat an experiment of the paper")
    experiments = own.add_subcommands(dest="experiment")
    experiments.add_subcommand("sine", _sine_parser(),
                               help="Figure 1: sin x from a good and a poor initialization")
    reproduce_discrete.add_to(experiments)
    reproduce_certificate.add_to(experiments)
    reproduce_images.add_to(experiments)


def run(settings: Namespace) -> bool:
    """Run the chosen experiment; whether it was interrupted."""
    if present().size > 1 and settings.experiment not in FIGURES:
        raise ExperimentError(f"reproduce {settings.experiment} is run by one process: start it without "
                              "torchrun")
    need("matplotlib", f"reproduce {settings.experiment}")
    experiments = {"sine": _sine, "binary": reproduce_discrete.runner("binary"),
                   "ternary": reproduce_discrete.runner("ternary"),
                   "saddle": reproduce_certificate.saddle, "certificate": reproduce_certificate.certificate,
                   **{name: reproduce_images.runner(name) for name in FIGURES}}
    return experiments[settings.experiment](settings[settings.experiment])


def _sine_parser() -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        "Figure 1: fit sin x with a residual network of 20 layers, from a good (a) and a poor (b) "
        "initialization. Writes metrics.csv, stages.csv, states.csv, fit.csv, summary.json, figures and "
        "report.html. Ctrl-C stops it; what has been measured is kept and reported."))
    options.add_argument("--config", action="config", help="a YAML file with options")
    options.add_argument("--out", type=str, default="runs/sine", help="folder for the results, new or empty")
    options.add_argument("--seeds", type=int, default=3,
                         help="runs of every method, on other data and initial controls")
    options.add_argument("--iterations", type=int | None, default=None, help=(
        "iterations of every method; by default 500 in (a), and in (b) 2000 for E-MSA and 10000 for gradient "
        "methods"))
    options.add_argument("--methods", type=str, default="all",
                         help=f"all, or names with commas: {', '.join(METHODS)}")
    options.add_argument("--quick", action="store_true", help="short runs with one seed, for a first look")
    options.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    return options


def _sine(options: Namespace) -> bool:
    console = Console()
    settings = SineSettings(Path(options.out), 1 if options.quick else options.seeds, options.iterations,
                            names(options.methods), options.quick, options.overwrite)
    console.print("Figure 1 of the paper: a residual network of 20 stages learns sin x, (a) from a good "
                  "initialization, (b) from a poor one; loss: mean squared error.", highlight=False)
    folder, interrupted = run_sine(settings, shlex.join(["pontryagin", *sys.argv[1:]]),
                                   TerminalProgress(console))
    if interrupted:
        console.print("Interrupted: reporting what has been measured.")
    report = write_report(folder, draw_figures(folder))
    console.print(f"Report: {report}", soft_wrap=True, highlight=False)
    return interrupted
