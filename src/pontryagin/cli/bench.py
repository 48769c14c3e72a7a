"""`pontryagin bench ...`."""

import shlex
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pontryagin.bench.benchmark import BenchSettings, run_bench
from pontryagin.bench.racers import METHODS
from pontryagin.bench.report import write_page
from pontryagin.bench.scaling import ScalingSettings, run_scaling
from pontryagin.bench.scaling_cases import MAXIMIZERS
from pontryagin.bench.scaling_report import write_scaling_page
from pontryagin.cli.lists import names
from pontryagin.run.figures import left_out
from pontryagin.run.progress import TerminalProgress


def add_to(commands: Any) -> None:
    """Add `bench` and its benchmarks to the subcommands of the program."""
    own = ArgumentParser(allow_abbrev=False, description="Measure speed, as ratios within one run.")
    commands.add_subcommand("bench", own, help="measure speed")
    benchmarks = own.add_subcommands(dest="benchmark")
    benchmarks.add_subcommand("optimizers", _parser(), help="EMSA beside tuned optimizers")
    benchmarks.add_subcommand("scaling", _scaling_parser(), help="extended MSA by several processes")


def run(settings: Namespace) -> bool:
    """Run the chosen benchmark; whether it was interrupted."""
    if without := left_out():
        Console().print(without, highlight=False, soft_wrap=True, markup=False)
    return {"optimizers": _optimizers, "scaling": _scaling}[settings.benchmark](settings[settings.benchmark])


def _scaling(options: Namespace) -> bool:
    console, processes = Console(), tuple(int(number) for number in options.processes.split(","))
    maximizers = names(options.maximizers) or MAXIMIZERS
    wanted = ScalingSettings(processes, maximizers, options.rounds, options.quick, Path(options.out),
                             options.overwrite)
    folder = run_scaling(wanted, shlex.join(["pontryagin", *sys.argv[1:]]))
    console.print(write_scaling_page(folder), highlight=False, soft_wrap=True)
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True, highlight=False)
    return False


def _scaling_parser() -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        "Whole iterations of extended MSA by one and by several processes of this machine, one thread each, "
        "in turn: strong and weak scaling, cost by depth and by samples, and the shares of propagation, "
        "moments, maximization and communication."))
    options.add_argument("--config", action="config", help="a YAML file with options")
    options.add_argument("--processes", type=str, default="2",
                         help="numbers of processes beside one, with commas")
    options.add_argument("--maximizers", type=str, default="all",
                         help=f"all, or names with commas: {', '.join(MAXIMIZERS)}")
    options.add_argument("--rounds", type=int, default=7, help="iterations measured of every case")
    options.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    options.add_argument("--out", type=str, default="runs/scaling",
                         help="folder for the results, new or empty")
    options.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    return options


def _optimizers(options: Namespace) -> bool:
    console = Console()
    wanted = BenchSettings(options.task, options.dataset, options.data, names(options.methods), options.seeds,
                           options.iterations, options.tuning, options.threads, Path(options.out),
                           options.overwrite)
    folder, interrupted = run_bench(wanted, shlex.join(["pontryagin", *sys.argv[1:]]),
                                    TerminalProgress(console))
    text = write_page(folder)
    console.print(text, highlight=False, soft_wrap=True)
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True, highlight=False)
    return interrupted


def _parser() -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        "EMSA beside Adam, plain and with the averages of EMSA, AdamW, schedule-free AdamW, SGD with "
        "momentum, Muon, SOAP and Shampoo: cost of an iteration, peak memory, iterations and seconds to "
        "targets. The methods run side by side, an iteration each in turn, on equal weights and batches."))
    options.add_argument("--config", action="config", help="a YAML file with options")
    options.add_argument("--task", type=str, default="cnn",
                         help="cnn (the paper's), mlp, autoencoder or transformer")
    options.add_argument("--dataset", type=str, default="digits", help="digits, mnist or fashion-mnist")
    options.add_argument("--data", type=str | None, default=None,
                         help="folder of the IDX files (or PONTRYAGIN_DATA)")
    options.add_argument("--methods", type=str, default="all",
                         help=f"all, or names with commas: {', '.join(METHODS)}")
    options.add_argument("--seeds", type=int, default=3,
                         help="runs of every method, on other weights and batches")
    options.add_argument("--iterations", type=int | None, default=None,
                         help="horizon of every run; by default the task's")
    options.add_argument("--tuning", type=int, default=150,
                         help="iterations of a tuning run; each grid has four rates")
    options.add_argument("--threads", type=int, default=1, help="threads of torch")
    options.add_argument("--out", type=str, default="runs/bench", help="folder for the results, new or empty")
    options.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    return options
