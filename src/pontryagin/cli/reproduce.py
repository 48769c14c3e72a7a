"""`pontryagin reproduce ...`: one command an experiment."""

from dataclasses import dataclass
from functools import partial

from pontryagin.cli.options import Call, Command
from pontryagin.cli.training import seeds, tell
from pontryagin.papers.certificate.experiment import CertificateSettings, run_certificate
from pontryagin.papers.discrete.experiment import METHODS as DISCRETE
from pontryagin.papers.discrete.experiment import QUICK_EPOCHS, QUICK_WIDTH, DiscreteSettings, run_discrete
from pontryagin.papers.discrete.paper import EPOCHS
from pontryagin.papers.images.experiment import METHODS, Request, run_images
from pontryagin.papers.images.paper import FIGURES
from pontryagin.papers.saddle.experiment import SaddleSettings, run_saddle
from pontryagin.papers.sine.experiment import SineSettings, run_sine
from pontryagin.papers.sine.report import draw_figures, write_report
from pontryagin.run.callbacks import TerminalDisplay
from pontryagin.run.errors import ExperimentError, need
from pontryagin.run.methods import METHODS as ALL
from pontryagin.run.option import option
from pontryagin.run.processes import present
from pontryagin.run.progress import TerminalProgress
from pontryagin.run.settings import RunSettings
from pontryagin.run.tables import read_summary


@dataclass(frozen=True)
class DiscreteOptions:
    """How much of the paper."""

    full: bool = option(f"the paper's {EPOCHS} epochs", False)
    quick: bool = option(f"digits, {QUICK_WIDTH} units a layer, {QUICK_EPOCHS} epochs, one seed, for a first "
                         "look",
                         False)


@dataclass(frozen=True)
class ImageOptions:
    """How much of a figure, by which methods."""

    methods: str = option(f"names with commas, by default {','.join(METHODS)}; also "
                          f"{', '.join(sorted(set(ALL) - set(METHODS)))}", "default")
    seeds: int = option("runs of every method, on other weights and batches", 1)
    quick: bool = option("100 iterations with one seed and little tuning, for a first look", False)


def alone(name: str) -> None:
    """Refuse several processes. Raises ExperimentError."""
    if present().size > 1:
        raise ExperimentError(f"reproduce {name} is run by one process: start it without torchrun")
    need("matplotlib", f"reproduce {name}")


def _sine(call: Call) -> bool:
    alone("sine")
    settings = call.make(SineSettings)
    call.say("Figure 1 of the paper: a residual network of 20 stages learns sin x, (a) from a good "
             "initialization, (b) from a poor one; loss: mean squared error.")
    folder, interrupted = run_sine(settings, call.line, TerminalProgress(call.console))
    if interrupted:
        call.say("Interrupted: reporting what has been measured.")
    call.say(f"Report: {write_report(folder, draw_figures(folder))}")
    return interrupted


def _saddle(call: Call) -> bool:
    alone("saddle")
    from pontryagin.papers.saddle.report import write_report

    folder, results, interrupted = run_saddle(call.make(SaddleSettings), call.line,
                                              TerminalProgress(call.console))
    report, text = write_report(folder, results)
    call.say(text, f"Report: {report}")
    return interrupted


def _certificate(call: Call) -> bool:
    alone("certificate")
    from pontryagin.papers.certificate.report import write_report

    folder, results, interrupted = run_certificate(call.make(CertificateSettings), call.line,
                                                   TerminalProgress(call.console))
    report, text = write_report(folder, results)
    call.say(text, f"Report: {report}")
    return interrupted


def _discrete(kind: str, call: Call) -> bool:
    alone(kind)
    from pontryagin.papers.discrete.report import headline, write_report

    chosen, settings = call.make(DiscreteOptions), call.make(DiscreteSettings, kind=kind)
    if chosen.quick and chosen.full:
        raise ExperimentError("--quick and --full: give one of them")
    if chosen.full:
        settings = call.make(DiscreteSettings, kind=kind, epochs=EPOCHS)
    folder, interrupted = run_discrete(settings.quick() if chosen.quick else settings, call.line,
                                       TerminalDisplay(call.console), TerminalProgress(call.console))
    report = write_report(folder)
    call.say(*headline(read_summary(folder / "summary.json")),
             "Interrupted, with a checkpoint; go on with --resume." if interrupted else "",
             f"Report: {report}")
    return interrupted


def _images(name: str, call: Call) -> bool:
    need("matplotlib", f"reproduce {name}")
    names = call.values["methods"]
    methods = (METHODS if names == "default" else tuple(ALL) if names == "all" else
               tuple(method.strip() for method in names.split(",")))
    settings = call.make(RunSettings, methods=methods, seeds=seeds(call))
    outcome = run_images(call.make(Request, name=name, settings=settings), call.line,
                         TerminalDisplay(call.console))
    return tell(call, outcome, f"pontryagin reproduce {name}")


def _discrete_command(kind: str, values: str) -> Command:
    return Command(
        partial(_discrete, kind),
        f"The fully connected network of Li and Hao (ICML 2018) on MNIST, weights in {values}: "
        "their rule, E-MSA over the set, and baselines. Writes metrics.csv, weights.csv (flips and zeros of "
        "every stage), summary.json, models (as they are, and packed into bits), figures and report.html. "
        "Ctrl-C stops it after the current iteration; --resume goes on.", (DiscreteSettings, DiscreteOptions),
        defaults={"out": f"runs/{kind}"},
        helps={"methods": f"all, or names with commas: {', '.join(DISCRETE[kind])}"})


def _image_command(name: str) -> Command:
    figure = FIGURES[name]
    grids = "; ".join(f"{method}: {', '.join(f'{rate:g}' for rate in ALL[method].rates)}"
                      for method in ("emsa-paper", "sgd", "adagrad", "adam", "adamw", "muon", "soap"))
    return Command(
        partial(_images, name),
        f"{figure.title}. The paper's network, batches of 100; every method from the same "
        "weights on the same batches, rates falling linearly to zero. Learning rates (for emsa-paper 1 / "
        "rho) are tuned first, on a seed of their own, and kept in a file that other runs use; emsa is not "
        f"tuned. Grids: {grids}. Writes metrics.csv, summary.json, figures, report.html, checkpoint.pt and "
        "the trained models.",
        (Request, ImageOptions, RunSettings),
        without={"batch_size", "schedule", "train_samples", "target_accuracy", "target_loss",
                 "checkpoint_every"},
        defaults={"epochs": figure.epochs, "evaluations": figure.evaluations, "out": f"runs/{name}"},
        helps={"epochs": "passes over the 55000 training images", "evaluations": "evenly over the run",
               "rates": "by method, in the place of the tuned ones", "options": "of methods, by method",
               "tuning": "file of the tuning's scores, used if there; by default "
                         f"tuning-{figure.dataset}-N.json, N of --tune, beside the folder of --out",
               "resume": "go on with the run in the folder, with its own settings"},
        quick={"iterations": 100, "seeds": 1, "paper_iterations": 3, "tune": 20})


COMMANDS = {
    "sine": Command(
        _sine, "Figure 1: fit sin x with a residual network of 20 layers, from a good (a) and a poor (b) "
        "initialization. Writes metrics.csv, stages.csv, states.csv, fit.csv, summary.json, figures and "
        "report.html. Ctrl-C stops it; what has been measured is kept and reported.", (SineSettings,),
        quick={"seeds": 1}),
    "binary": _discrete_command("binary", "{-1, 1}"),
    "ternary": _discrete_command("ternary", "{-1, 0, 1}"),
    "saddle": Command(
        _saddle,
        "The Hessian of the sine problem in all 600 controls, at zeros and at the poor initialization: its "
        "whole spectrum, and the density by Lanczos quadrature; then its extreme eigenvalues along a run of "
        "Adam and of E-MSA. Writes eigenvalues.csv, density.csv, curvature.csv, summary.json, a figure and "
        "report.html.",
        (SaddleSettings,)),
    "certificate": Command(
        _certificate,
        "Full batches under penalty rules that measure the constant C of Lemma 2 and set rho = 2C: J "
        "must never rise. Beside them Adam, its rate the best of five. Writes metrics.csv, stages.csv, "
        "summary.json, figures and report.html.", (CertificateSettings,), quick={"seeds": 1}),
    **{name: _image_command(name) for name in FIGURES},
}
