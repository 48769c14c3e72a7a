"""`pontryagin reproduce ...`: one function a figure of the paper."""

import shlex
import sys
from pathlib import Path

from rich.console import Console

from pontryagin.experiments.errors import ExperimentError
from pontryagin.experiments.progress import TerminalProgress
from pontryagin.experiments.sine.experiment import SineSettings, run_sine

INTERRUPTED = 130


def sine(
    out: str = "runs/sine",
    seeds: int = 3,
    iterations: int | None = None,
    methods: str = "all",
    quick: bool = False,
    overwrite: bool = False,
) -> int:
    """Figure 1: fit sin x with a residual network of 20 layers, from a good (a) and a poor (b) initialisation.

    Writes metrics.csv, stages.csv, states.csv, fit.csv, summary.json, figures and report.html. Ctrl-C stops it; what has
    been measured is kept and reported.

    Args:
        out: Folder for the results; must be new or empty.
        seeds: How many times every method is run, on other data and initial controls.
        iterations: Iterations of every method. By default 500 in (a); in (b) 2000 for E-MSA and 10000 for gradient methods.
        methods: Names separated by commas, or all: msa, emsa-paper, emsa, emsa-secant, sgd, adagrad, adam, lbfgs, lm.
        quick: Short runs with one seed, for a first look.
        overwrite: Replace the run that is in the folder.
    """
    try:
        from pontryagin.experiments.figures import draw_figures
        from pontryagin.experiments.report import write_report
    except ImportError as error:
        raise ExperimentError(f"the report needs {error.name}: pip install 'pontryagin[experiments]'") from error
    console = Console()
    names = None if methods == "all" else tuple(name.strip() for name in methods.split(",") if name.strip())
    settings = SineSettings(Path(out), 1 if quick else seeds, iterations, names, quick, overwrite)
    folder, interrupted = run_sine(settings, "pontryagin " + shlex.join(sys.argv[1:]), TerminalProgress(console))
    if interrupted:
        console.print("Interrupted: reporting what has been measured.")
    report = write_report(folder, draw_figures(folder))
    console.print(f"Report: {report}", soft_wrap=True)
    return INTERRUPTED if interrupted else 0
