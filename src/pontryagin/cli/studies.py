"""`pontryagin reproduce ...` and `pontryagin bench ...`: one command an experiment."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pontryagin.bench import report, scaling_report
from pontryagin.bench.benchmark import BenchSettings, run_bench
from pontryagin.bench.panel import report as panel_report
from pontryagin.bench.panel.experiment import PanelSettings, described, run_panel
from pontryagin.bench.scaling import ScalingSettings, run_scaling
from pontryagin.cli.options import Call, Command, options_of
from pontryagin.cli.training import seeds, tell
from pontryagin.papers.certificate.experiment import CertificateSettings, run_certificate
from pontryagin.papers.control.experiment import ControlSettings, run_control
from pontryagin.papers.discrete.experiment import METHODS as DISCRETE
from pontryagin.papers.discrete.experiment import QUICK_EPOCHS, QUICK_WIDTH, DiscreteSettings, run_discrete
from pontryagin.papers.discrete.paper import EPOCHS
from pontryagin.papers.images.experiment import METHODS, Request, run_images
from pontryagin.papers.images.paper import FIGURES
from pontryagin.papers.plateau.experiment import PlateauSettings, run_plateau
from pontryagin.papers.saddle.experiment import SaddleSettings, run_saddle
from pontryagin.papers.sine.experiment import SineSettings, run_sine
from pontryagin.papers.sine.report import draw_figures, write_report
from pontryagin.papers.sine.setup import SETUPS, SineSetup
from pontryagin.run.callbacks import TerminalDisplay
from pontryagin.run.errors import ExperimentError, need
from pontryagin.run.figures import left_out
from pontryagin.run.methods import METHODS as ALL
from pontryagin.run.option import SEEDS, Seeds, option
from pontryagin.run.processes import present
from pontryagin.run.progress import TerminalProgress
from pontryagin.run.reports.page import headline_of
from pontryagin.run.settings import RunSettings
from pontryagin.run.tables import read_summary


@dataclass(frozen=True)
class DiscreteOptions:
    """How much of the paper."""

    full: bool = option(f"the paper's {EPOCHS} epochs", False)
    quick: bool = option(
        f"digits, {QUICK_WIDTH} units a layer, {QUICK_EPOCHS} epochs, one seed, for a first look", False)


@dataclass(frozen=True)
class ImageOptions:
    """How much of a figure, by which methods."""

    methods: tuple[str, ...] | None = option(f"all, or names with commas: {', '.join(ALL)}", METHODS)
    seeds: Seeds = option(SEEDS, 1)
    quick: bool = option("100 iterations with one seed and little tuning, for a first look", False)


def _alone(name: str) -> None:
    """Refuse several processes, and one that cannot draw. Raises ExperimentError."""
    if present().size > 1:
        raise ExperimentError(f"reproduce {name} is run by one process: start it without torchrun")
    need("matplotlib", f"reproduce {name}")


def _sine(call: Call) -> bool:
    _alone("sine")
    settings = call.make(SineSettings, setup=call.make(SineSetup))
    folder, interrupted = run_sine(settings, call.line, TerminalProgress(call.console))
    call.say("Interrupted: reporting what has been measured." if interrupted else "")
    _tell(call, write_report(folder, draw_figures(folder)))
    return interrupted


def _tell(call: Call, page: Path) -> None:
    """What came out, and where to look."""
    call.say(headline_of(page), f"Report: {page}")


def _paper(name: str, settings: type, run: Callable[..., Any], call: Call) -> bool:
    """The saddle, the plateau, the control problems or the certificate."""
    _alone(name)
    drawing = import_module(f"pontryagin.papers.{name}.report")  # imports matplotlib
    folder, results, interrupted = run(call.make(settings), call.line, TerminalProgress(call.console))
    page, text = drawing.write_report(folder, results)
    call.say(text)
    _tell(call, page)
    return bool(interrupted)


def _discrete(kind: str, call: Call) -> bool:
    _alone(kind)
    from pontryagin.papers.discrete.report import headline, write_report

    chosen = call.make(DiscreteOptions)
    if chosen.quick and chosen.full:
        raise ExperimentError("--quick and --full: give one of them")
    settings = call.make(DiscreteSettings, kind=kind, **({"epochs": EPOCHS} if chosen.full else {}))
    folder, interrupted = run_discrete(settings.quick() if chosen.quick else settings, call.line,
                                       TerminalDisplay(call.console), TerminalProgress(call.console))
    page = write_report(folder)
    call.say(*headline(read_summary(folder / "summary.json")),
             "Interrupted, with a checkpoint; go on with --resume." if interrupted else "")
    _tell(call, page)
    return interrupted


def _images(name: str, call: Call) -> bool:
    need("matplotlib", f"reproduce {name}")
    settings = call.make(RunSettings, methods=call.values["methods"] or tuple(ALL), seeds=seeds(call))
    outcome = run_images(call.make(Request, name=name, settings=settings), call.line,
                         TerminalDisplay(call.console))
    return tell(call, outcome, f"pontryagin reproduce {name}")


def _optimizers(call: Call) -> bool:
    call.say(left_out())
    folder, interrupted = run_bench(call.make(BenchSettings), call.line, TerminalProgress(call.console))
    call.say(report.write_report(folder))
    _tell(call, folder / "report.html")
    return interrupted


def _panel(call: Call) -> bool:
    settings = call.make(PanelSettings)
    if settings.list:
        call.say(*map(described, settings.chosen))
        return False
    call.say(left_out())
    results = run_panel(settings, call.line, TerminalProgress(call.console))
    call.say(panel_report.write_report(settings.out))
    _tell(call, settings.out / "report.html")
    return results.interrupted


def _scaling(call: Call) -> bool:
    call.say(left_out())
    folder, interrupted = run_scaling(call.make(ScalingSettings), call.line)
    call.say(scaling_report.write_report(folder))
    _tell(call, folder / "report.html")
    return interrupted


def _discrete_command(kind: str, values: str) -> Command:
    return Command(
        partial(_discrete, kind), (DiscreteSettings, DiscreteOptions),
        f"The fully connected network of Li and Hao (ICML 2018) on MNIST, weights in {values}: their rule, "
        "E-MSA over the set, and baselines. Writes metrics.csv, weights.csv (flips and zeros of every "
        "stage), summary.json, models (as they are, and packed into bits), figures and report.html. Ctrl-C "
        "stops it after the current iteration; --resume goes on.", defaults={"out": f"runs/{kind}"},
        helps={"methods": f"all, or names with commas: {', '.join(DISCRETE[kind])}"})


def _released_command(setup: str, what: str) -> Command:
    """A run of the authors' released code."""
    numbers = {name: getattr(SETUPS[setup], name) for name in options_of(SineSetup)}
    return Command(
        _sine, (SineSettings, SineSetup),
        f"The sine as the authors' released code runs it: {what}; the losses that it gave stand beside "
        "those found here. Writes what reproduce sine writes.",
        defaults={**numbers, "out": f"runs/sine-{setup}", "iterations": 500,
                  "methods": "emsa-paper,emsa,adam"},
        quick={"seeds": 1, "iterations": None})


def _image_command(name: str) -> Command:
    figure = FIGURES[name]
    grids = "; ".join(f"{method}: {', '.join(f'{rate:g}' for rate in ALL[method].rates)}"
                      for method in ("emsa-paper", "sgd", "adagrad", "adam", "adamw", "muon", "soap"))
    return Command(
        partial(_images, name), (Request, ImageOptions, RunSettings),
        f"{figure.title}. The paper's network, batches of 100; every method from the same weights on the "
        "same batches, rates falling linearly to zero. Learning rates (for emsa-paper 1 / rho) are tuned "
        "first, on a seed of their own, and kept in a file that other runs use; emsa is not tuned. Grids: "
        f"{grids}. Writes metrics.csv, summary.json, figures, report.html, checkpoint.pt and the trained "
        "models.",
        without={"batch_size", "schedule", "train_samples", "target_accuracy", "target_loss",
                 "checkpoint_every", "warm_up", "clip_norm", "autocast", "patience", "num_workers"},
        defaults={"epochs": figure.epochs, "evaluations": figure.evaluations, "out": f"runs/{name}"},
        helps={"epochs": "passes over the 55000 training images", "evaluations": "evenly over the run",
               "rates": "by method, in the place of the tuned ones", "options": "of methods, by method",
               "tuning": "file of the tuning's scores, used if there; by default "
                         f"tuning-{figure.dataset}-N.json, N of --tune, beside the folder of --out",
               "resume": "go on with the run in the folder, with its own settings"},
        quick={"iterations": 100, "seeds": 1, "paper_iterations": 3, "tune": 20})


COMMANDS = {
    "reproduce sine": Command(_sine, (SineSettings, SineSetup), quick={"seeds": 1}),
    "reproduce sine-released": _released_command(
        "released", "100 samples, from zeros with uniform noise of 0.005, regularizer 1e-3"),
    "reproduce sine-released-1000": _released_command(
        "released-1000", "1000 samples, good initialization, regularizer 1e-3 (--regularizer 0: without)"),
    "reproduce binary": _discrete_command("binary", "{-1, 1}"),
    "reproduce ternary": _discrete_command("ternary", "{-1, 0, 1}"),
    "reproduce saddle": Command(partial(_paper, "saddle", SaddleSettings, run_saddle), (SaddleSettings,)),
    "reproduce plateau": Command(partial(_paper, "plateau", PlateauSettings, run_plateau),
                                 (PlateauSettings,)),
    "reproduce control": Command(partial(_paper, "control", ControlSettings, run_control),
                                 (ControlSettings,)),
    "reproduce certificate": Command(partial(_paper, "certificate", CertificateSettings, run_certificate),
                                     (CertificateSettings,), quick={"seeds": 1}),
    **{f"reproduce {name}": _image_command(name) for name in FIGURES},
    "bench optimizers": Command(_optimizers, (BenchSettings,)),
    "bench panel": Command(_panel, (PanelSettings,)),
    "bench scaling": Command(_scaling, (ScalingSettings,), defaults={"maximizers": None}),
}
