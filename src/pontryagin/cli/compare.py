"""`pontryagin compare`: several methods on the same task."""

from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pontryagin.cli.lists import names
from pontryagin.cli.run_options import add_run, add_task, request
from pontryagin.cli.train import start
from pontryagin.run.methods import METHODS, choose

_USUAL = "emsa,sgd-momentum,adam"


def add_to(commands: Any) -> None:
    """Add `compare` to the subcommands of the program."""
    commands.add_subcommand("compare", _parser(), help="train a model by several methods, side by side")


def run(options: Namespace, given: Namespace, arguments: Sequence[str]) -> bool:
    """Compare; whether it was interrupted."""
    methods: dict[str, Any] = {
        "methods": tuple(method.name for method in choose(names(options.methods))), "rates": options.rates,
        "options": options.options, "tune": options.tune}
    if options.resume:
        methods = {name: value for name, value in methods.items() if name in given}
    return start(*request(options, given, methods), arguments)


def _parser() -> ArgumentParser:
    grids = "; ".join(f"{name}: {', '.join(f'{rate:g}' for rate in method.rates)}"
                      for name, method in METHODS.items())
    options = ArgumentParser(allow_abbrev=False, description=(
        "Train a model by several methods that take turns, an iteration each, from equal weights on equal "
        "batches. Writes the same files as `train`. With --tune, learning rates are chosen on these grids "
        f"(else the first is taken): {grids}."))
    add_task(options)
    options.add_argument("--methods", type=str, default=_USUAL,
                         help=f"all, or names with commas: {', '.join(METHODS)}")
    options.add_argument("--tune", type=int, default=0,
                         help="iterations of a tuning run at every rate of the grid; 0: no tuning")
    options.add_argument("--rates", type=dict[str, float], default={},
                         help="by method, such as --rates.adam 0.002; not tuned")
    options.add_argument("--options", type=dict[str, dict[str, Any]], default={}, help=(
        """by method, such as --options '{"emsa": {"damping": 0.3}}'"""))
    add_run(options, "runs/compare")
    return options
