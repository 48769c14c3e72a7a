"""`pontryagin train`: a model, data, a method."""

import shlex
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pontryagin.cli.run_options import add_run, add_task, request
from pontryagin.run.callbacks import TerminalDisplay
from pontryagin.run.methods import METHODS
from pontryagin.run.processes import present
from pontryagin.run.settings import RunSettings
from pontryagin.run.task import Task
from pontryagin.run.training import Outcome, run_training


def add_to(commands: Any) -> None:
    """Add `train` to the subcommands of the program."""
    commands.add_subcommand("train", _parser(), help="train a model")


def run(options: Namespace, given: Namespace, arguments: Sequence[str]) -> bool:
    """Train; whether it was interrupted."""
    method = options.method
    methods: dict[str, Any] = {"methods": (method,)}
    if options.lr is not None:
        methods["rates"] = {method: options.lr}
    if options.options:
        methods["options"] = {method: options.options}
    if options.resume and "method" not in given:
        methods = {name: value for name, value in methods.items() if name != "methods"}
    return start(*request(options, given, methods), arguments)


def start(task: Task, settings: RunSettings, arguments: Sequence[str]) -> bool:
    """Run, and say where everything is; whether it was interrupted."""
    console = Console(quiet=present().rank > 0)
    display = TerminalDisplay(console)
    display.say(f"{task.name}: {len(task.train):,} samples for training, {len(task.test):,} for testing; loss: "
              f"{task.objective.name}")
    outcome = run_training(task, settings, shlex.join(["pontryagin", *arguments]), display)
    _tell(outcome, display)
    return outcome.interrupted


def _tell(outcome: Outcome, display: TerminalDisplay) -> None:
    for line in outcome.sentences:
        display.say(line)
    if outcome.interrupted:
        display.say(f"Interrupted, with a checkpoint. Go on: add --resume --out {outcome.out}")
    if outcome.report is not None:
        display.say(f"Report: {outcome.report}")


def _parser() -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        "Train a model on data by a method. Writes metrics.csv, summary.json, figures, report.html, "
        "checkpoint.pt and the trained model into the folder. Ctrl-C stops it after the current iteration; "
        "--resume goes on, after a kill too. Without options: the paper's residual network on digits, by "
        "EMSA."))
    add_task(options)
    options.add_argument("--method", type=str, default="emsa", help=", ".join(METHODS))
    options.add_argument("--lr", type=float | None, default=None,
                         help="learning rate; by default the method's own")
    options.add_argument("--options", type=dict[str, Any], default={},
                         help="of the method, such as --options.damping 0.3")
    add_run(options, "runs/train")
    return options
