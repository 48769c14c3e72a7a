"""`pontryagin reproduce saddle` and `pontryagin reproduce certificate`."""

import shlex
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pontryagin.cli.lists import names
from pontryagin.papers.certificate.experiment import CertificateSettings, run_certificate
from pontryagin.papers.certificate.tasks import TASKS
from pontryagin.papers.saddle.experiment import SaddleSettings, run_saddle
from pontryagin.run.progress import TerminalProgress


def add_to(experiments: Any) -> None:
    """Add both to the experiments of `reproduce`."""
    experiments.add_subcommand("saddle", _saddle_parser(),
                               help="the Hessian's spectrum at the zero initialization of the sine")
    experiments.add_subcommand("certificate", _certificate_parser(),
                               help="rho = 2C with C measured, beside tuned Adam")


def _saddle_parser() -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        "The Hessian of the sine problem in all 600 controls, at zeros and at the poor initialization: its "
        "whole spectrum, and the density by Lanczos quadrature; then its extreme eigenvalues along a run of "
        "Adam and of E-MSA. Writes eigenvalues.csv, density.csv, curvature.csv, summary.json, a figure and "
        "report.html."))
    options.add_argument("--config", action="config", help="a YAML file with options")
    options.add_argument("--out", type=str, default="runs/saddle",
                         help="folder for the results, new or empty")
    options.add_argument("--seed", type=int, default=0, help="of data and initial noise")
    options.add_argument("--places", type=int, default=25, help="Hessians along each of the two runs")
    options.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    return options


def _certificate_parser() -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        "Full batches under penalty rules that measure the constant C of Lemma 2 and set rho = 2C: J must "
        "never rise. Beside them Adam, its rate the best of five. Writes metrics.csv, stages.csv, "
        "summary.json, figures and report.html."))
    options.add_argument("--config", action="config", help="a YAML file with options")
    options.add_argument("--out", type=str, default="runs/certificate",
                         help="folder for the results, new or empty")
    options.add_argument("--seeds", type=int, default=5,
                         help="runs of every method, on other data or initial controls")
    options.add_argument("--tasks", type=str, default="all",
                         help=f"all, or names with commas: {', '.join(TASKS)}")
    options.add_argument("--quick", action="store_true", help="one seed and few iterations, for a first look")
    options.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    return options


def saddle(options: Namespace) -> bool:
    """Run the saddle study; whether it was interrupted."""
    from pontryagin.papers.saddle.report import write_report

    console = Console()
    settings = SaddleSettings(Path(options.out), options.seed, options.places, options.overwrite)
    folder, results, interrupted = run_saddle(settings, shlex.join(["pontryagin", *sys.argv[1:]]),
                                              TerminalProgress(console))
    return _show(console, *write_report(folder, results), interrupted)


def certificate(options: Namespace) -> bool:
    """Run the comparison with Adam; whether it was interrupted."""
    from pontryagin.papers.certificate.report import write_report

    console = Console()
    settings = CertificateSettings(Path(options.out), 1 if options.quick else options.seeds,
                                   names(options.tasks), options.quick, options.overwrite)
    folder, results, interrupted = run_certificate(settings, shlex.join(["pontryagin", *sys.argv[1:]]),
                                                   TerminalProgress(console))
    return _show(console, *write_report(folder, results), interrupted)


def _show(console: Console, report: Path, text: str, interrupted: bool) -> bool:
    console.print(text, highlight=False, soft_wrap=True)
    console.print(f"Report: {report}", soft_wrap=True, highlight=False)
    return interrupted
