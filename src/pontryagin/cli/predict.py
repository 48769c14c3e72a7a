"""`pontryagin predict`: a trained model on data."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from pontryagin.run.predict import Prediction, predict


def add_to(commands: Any) -> None:
    """Add `predict` to the subcommands of the program."""
    commands.add_subcommand("predict", _parser(), help="evaluate a trained model")


def run(options: Namespace) -> bool:
    """Evaluate, print, and write predictions if asked."""
    given = {name: options[name] for name in ("model", "data", "loss") if options[name] is not None}
    target = None if options.predictions is None else Path(options.predictions)
    wanted = Prediction(Path(options.path), options.method, options.seed, options.split, options.device,
                        target, options.overwrite)
    for line in predict(wanted, given, options.data_args):
        Console().print(line, highlight=False, soft_wrap=True, markup=False)
    return False


def _parser() -> ArgumentParser:
    options = ArgumentParser(allow_abbrev=False, description=(
        "Load a trained model or a checkpoint, without executing anything that it holds, and evaluate it: "
        "loss, accuracy, and the predictions as a table if asked."))
    options.add_argument("path", type=str,
                         help="the folder of a run, a file of its models, or its checkpoint.pt")
    options.add_argument("--method", type=str | None, default=None, help="which, if the folder has several")
    options.add_argument("--seed", type=int | None, default=None, help="which, if the folder has several")
    options.add_argument("--split", type=str, default="test", help="train or test")
    options.add_argument("--predictions", type=str | None, default=None,
                         help="a csv file: row, target, prediction, confidence")
    options.add_argument("--overwrite", action="store_true", help="replace that file")
    options.add_argument("--model", type=str | None, default=None, help="your own model's class again")
    options.add_argument("--data", type=str | None, default=None,
                         help="other data, or your own function again")
    options.add_argument("--data-args", type=dict[str, Any] | None, default=None, help="its arguments")
    options.add_argument("--loss", type=str | None, default=None, help="your own loss again")
    options.add_argument("--device", type=str, default="cpu", help="cpu, cuda, ...")
    return options
