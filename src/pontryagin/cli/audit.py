"""`pontryagin audit`: what a trained network could still gain, and what other weights would cost it."""

import shlex
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pontryagin.audit.sets import SETS
from pontryagin.cli.lists import names
from pontryagin.run.auditing.report import write_report
from pontryagin.run.auditing.request import AuditSettings
from pontryagin.run.auditing.run import run_audit
from pontryagin.run.figures import left_out
from pontryagin.run.objective import OBJECTIVES
from pontryagin.run.parts import READY_DATA, READY_MODELS
from pontryagin.run.progress import TerminalProgress


def add_to(commands: Any) -> None:
    """Add `audit` to the subcommands of the program."""
    commands.add_subcommand("audit", _parser(), help="audit a trained network stage by stage")


def run(options: Namespace) -> bool:
    """Audit, print the table, write files and report; whether it was interrupted."""
    console = Console()
    if without := left_out():
        console.print(without, highlight=False, soft_wrap=True, markup=False)
    weights = None if options.weights is None else Path(options.weights)
    settings = AuditSettings(
        options.model, options.data, Path(options.out), options.model_args, options.data_args, weights,
        options.loss, options.part, names(options.sets), not options.predict_only, options.batches,
        options.batch_size, options.seed, options.threads, options.overwrite)
    audit, interrupted = run_audit(settings, shlex.join(["pontryagin", *sys.argv[1:]]),
                                   TerminalProgress(console))
    if audit is None:
        raise KeyboardInterrupt
    console.print(str(audit), highlight=False, soft_wrap=True, markup=False)
    console.print(f"Report: {write_report(settings.out, audit)}", highlight=False, soft_wrap=True,
                  markup=False)
    return interrupted


def _parser() -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        "For every affine stage of a trained network: the Hamiltonian gain still to be had, costates, "
        "conditioning, and the predicted and true cost of other admissible sets. Writes stages.csv, "
        "restrictions.csv, summary.json, figures and report.html. The model's file is only read."))
    options.add_argument("--config", action="config", help="a YAML file with options")
    options.add_argument("model", type=str, help=(
        f"{', '.join(READY_MODELS)}, or a class or function of yours that makes a torch module, as "
        "my.module:Net"))
    options.add_argument("data", type=str, help=(
        f"{', '.join(READY_DATA)}, or a function of yours that returns (train, test), as my.module:load"))
    options.add_argument("--weights", type=str | None, default=None, help=(
        "the model's weights: a state dict saved by torch.save, or a checkpoint that holds one; by default "
        "as the model is made"))
    options.add_argument("--model-args", type=dict[str, Any], default={},
                         help="its arguments, such as --model-args.width 64")
    options.add_argument("--data-args", type=dict[str, Any], default={},
                         help="its arguments, such as --data-args.folder FOLDER")
    options.add_argument("--loss", type=str | None, default=None, help=(
        f"{', '.join(OBJECTIVES)}, or my.module:function of (output, target); by default by the kind of the "
        "targets"))
    options.add_argument("--part", type=str, default="train", help="of the data: train, test or validation")
    options.add_argument("--sets", type=str, default="all",
                         help=f"all, or names with commas: {', '.join(SETS)}")
    options.add_argument("--predict-only", action="store_true",
                         help="do not measure the true costs, which takes longest")
    options.add_argument("--batches", type=int, default=16,
                         help="how many; errors come from the differences between them")
    options.add_argument("--batch-size", type=int, default=64, help="samples of each")
    options.add_argument("--seed", type=int, default=0, help="of the samples drawn")
    options.add_argument("--threads", type=int | None, default=None, help="of torch; by default all cores")
    options.add_argument("--out", type=str, default="runs/audit", help="folder for the results, new or empty")
    options.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    return options
