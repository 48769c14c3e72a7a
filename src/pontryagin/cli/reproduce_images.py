"""`pontryagin reproduce mnist`, `fashion-mnist` and `wall-clock`."""

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pontryagin.cli.lists import names
from pontryagin.papers.images.experiment import METHODS, Request, run_images
from pontryagin.papers.images.paper import FIGURES
from pontryagin.run.callbacks import TerminalDisplay
from pontryagin.run.errors import ExperimentError
from pontryagin.run.methods import METHODS as ALL
from pontryagin.run.processes import present
from pontryagin.run.settings import DTYPES, RunSettings

_QUICK = {"iterations": 100, "seeds": 1, "paper_iterations": 3, "tune": 20}


def add_to(experiments: Any) -> None:
    """Add the image experiments to those of `reproduce`."""
    for name, figure in FIGURES.items():
        experiments.add_subcommand(name, _parser(name), help=figure.title)


def runner(name: str) -> Callable[[Namespace], bool]:
    """Runs the experiment of this name; whether it was interrupted."""
    return partial(_run, name)


def _run(name: str, options: Namespace) -> bool:
    display = TerminalDisplay(Console(quiet=present().rank > 0))
    outcome = run_images(request(name, options), shlex.join(["pontryagin", *sys.argv[1:]]), display)
    for line in outcome.sentences:
        display.say(line)
    if outcome.interrupted:
        display.say(f"Interrupted, with a checkpoint. Go on: pontryagin reproduce {name} --resume --out "
                  f"{outcome.out}")
    if outcome.report is not None:
        display.say(f"Report: {outcome.report}")
    return outcome.interrupted


def request(name: str, options: Namespace) -> Request:
    """What the options ask for. Raises ExperimentError."""
    values = {key: options[key] for key in _QUICK} | (_QUICK if options.quick else {})
    if values["seeds"] < 1:
        raise ExperimentError(f"--seeds: expected a number >= 1, found {values['seeds']}")
    methods = METHODS if options.methods == "default" else names(options.methods) or tuple(ALL)
    settings = RunSettings(
        out=Path(options.out), methods=methods, seeds=tuple(range(values["seeds"])), epochs=options.epochs,
        iterations=values["iterations"], rates=options.rates, options=options.options,
        evaluations=options.evaluations, device=options.device, dtype=options.dtype, threads=options.threads,
        overwrite=options.overwrite, resume=options.resume, tensorboard=options.tensorboard)
    return Request(name, settings, options.data, values["paper_iterations"], values["tune"],
                   None if options.tuning is None else Path(options.tuning))


def _parser(name: str) -> ArgumentParser:
    figure = FIGURES[name]
    grids = "; ".join(f"{method}: {', '.join(f'{rate:g}' for rate in ALL[method].rates)}"
                      for method in ("emsa-paper", "sgd", "adagrad", "adam", "adamw", "muon", "soap"))
    options = ArgumentParser(allow_abbrev=False, description=(
        f"{figure.title}. The paper's network, batches of 100; every method from the same weights on the "
        "same batches, rates falling linearly to zero. Learning rates (for emsa-paper 1 / rho) are tuned "
        "first, on a seed of their own, and kept in a file that other runs use; emsa is not tuned. Grids: "
        f"{grids}. Writes metrics.csv, summary.json, figures, report.html, checkpoint.pt and the trained "
        "models."))
    options.add_argument("--config", action="config", help="a YAML file with options")
    options.add_argument("--data", type=str | None, default=None,
                         help="folder of the IDX files, else looked for and fetched")
    options.add_argument("--epochs", type=int, default=figure.epochs,
                         help="passes over the 55000 training images")
    options.add_argument("--iterations", type=int | None, default=None,
                         help="mini-batches, in the place of --epochs")
    options.add_argument("--methods", type=str, default="default", help=(
        f"names with commas, by default {','.join(METHODS)}; also "
        f"{', '.join(sorted(set(ALL) - set(METHODS)))}"))
    options.add_argument("--paper-iterations", type=int, default=100,
                         help="after which emsa-paper stops; one costs that of many")
    options.add_argument("--seeds", type=int, default=1,
                         help="runs of every method, on other weights and batches")
    options.add_argument("--tune", type=int, default=150, help=(
        "iterations of a tuning run at every rate of a grid (emsa-paper: a tenth); 0: no tuning, each "
        "method's first rate"))
    options.add_argument("--tuning", type=str | None, default=None, help=(
        f"file of the tuning's scores, used if there; by default tuning-{figure.dataset}-N.json, N of "
        "--tune, beside the folder of --out"))
    options.add_argument("--rates", type=dict[str, float], default={},
                         help="by method, in the place of the tuned ones")
    options.add_argument("--options", type=dict[str, dict[str, Any]], default={},
                         help="of methods, by method")
    options.add_argument("--evaluations", type=int | None, default=figure.evaluations,
                         help="evenly over the run")
    options.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    options.add_argument("--dtype", type=str, default="float32", help=", ".join(DTYPES))
    options.add_argument("--threads", type=int | None, default=None, help="of torch; by default all cores")
    options.add_argument("--out", type=str, default=f"runs/{name}",
                         help="folder for the results, new or empty")
    options.add_argument("--quick", action="store_true",
                         help="100 iterations with one seed and little tuning, for a first look")
    options.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    options.add_argument("--resume", action="store_true",
                         help="go on with the run in the folder, with its own settings")
    options.add_argument("--tensorboard", action="store_true", help="write event files for TensorBoard too")
    return options
