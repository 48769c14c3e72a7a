"""The commands by name, each with the module whose COMMANDS has it and a line of help.

A module is imported, and options are added, for the commands that are named in the arguments: the version and
the lists of commands come without torch.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Collection, Sequence
from importlib import import_module

import yaml

import pontryagin
from pontryagin.cli.arguments import missing, values_of
from pontryagin.cli.examples import EXAMPLES
from pontryagin.cli.options import Call, Command, Help
from pontryagin.run.errors import ExperimentError, shown, unknown

COMMANDS = {
    "train": ("training", "train a model"),
    "compare": ("training", "train a model by several methods, side by side"),
    "predict": ("files", "evaluate a trained model"),
    "report": ("report", "draw the page of a run again"),
    "reproduce": ("", "repeat an experiment of the paper"),
    "reproduce sine": ("studies", "Figure 1: sin x from a good and a poor initialization"),
    "reproduce sine-released": ("studies", "the sine as the authors' released code runs it"),
    "reproduce sine-released-1000": ("studies", "the same with 1000 samples and a good initialization"),
    "reproduce binary": ("studies", "weights in {-1, 1}: Li and Hao (2018), MNIST"),
    "reproduce ternary": ("studies", "weights in {-1, 0, 1}: Li and Hao (2018), MNIST"),
    "reproduce saddle": ("studies", "the Hessian's spectrum at the zero initialization of the sine"),
    "reproduce plateau": ("studies", "iterations that leave the plateau of the sine, by noise and depth"),
    "reproduce control": ("studies", "classical problems of optimal control, beside their optima and scipy"),
    "reproduce certificate": ("studies", "rho = 2C with C measured, beside tuned Adam"),
    "reproduce mnist": ("studies", "Figure 2: MNIST"),
    "reproduce fashion-mnist": ("studies", "Figure 4: Fashion-MNIST"),
    "reproduce wall-clock": ("studies", "Figure 3 turned round: seconds to a goal, MNIST"),
    "bench": ("", "measure speed"),
    "bench optimizers": ("studies", "EMSA beside tuned optimizers"),
    "bench panel": ("studies", "EMSA on networks of many kinds, beside rivals tuned on each"),
    "bench scaling": ("studies", "extended MSA by several processes"),
    "data": ("files", "list and fetch data sets"),
    "data fetch": ("files", "fetch data sets into the cache"),
    "export": ("files", "pack discrete weights into bits"),
    "audit": ("files", "audit a trained network stage by stage"),
    "completion": ("completion", "print what a shell needs to complete commands"),
}
"""Those without a module are groups of others."""
INNER = {"": "command", "reproduce": "experiment", "bench": "benchmark", "data": "action"}
"""What the commands of a group are called."""
DESCRIPTIONS = {
    "": "Deep learning as optimal control: training by Pontryagin's maximum principle.",
    "reproduce": "Repeat an experiment of the literature on the maximum principle, beside baselines.",
    "bench": "Measure speed, as ratios within one run.",
}


def command(path: str) -> Command:
    """The command of this name, as `reproduce sine`."""
    found: Command = import_module(f"pontryagin.cli.{COMMANDS[path][0]}").COMMANDS[path]
    return found


def examples_of(path: str) -> str:
    """The end of a command's help."""
    return "\n  ".join(["examples:", *EXAMPLES[path]]).replace("%", "%%")


def parser(wanted: Collection[str] | None = None) -> ArgumentParser:
    """For the help: the whole command line, or so much of it as is named in the arguments."""
    top = ArgumentParser(prog="pontryagin", description=DESCRIPTIONS[""], epilog=examples_of(""),
                         formatter_class=Help)
    top.add_argument("--version", action="store_true", help="print the version, and end")
    groups = {"": top.add_subparsers(dest=INNER[""], metavar=INNER[""])}
    for path, (module, line) in COMMANDS.items():
        group, _, name = path.rpartition(" ")
        own = groups[group].add_parser(name, help=line, description=DESCRIPTIONS.get(path),
                                       epilog=examples_of(path), formatter_class=Help)
        if module and (wanted is None or name in wanted):
            command(path).describe(own)
        if path in INNER:
            groups[path] = own.add_subparsers(dest=INNER[path], metavar=INNER[path])
    return top


def called(arguments: Sequence[str]) -> tuple[str, Call]:
    """The command that the arguments ask for, and its call. Raises ExperimentError, and SystemExit after
    --help, --version and --print_config."""
    path, rest = _path(arguments)
    if not path and "--version" in rest:
        print(f"pontryagin {pontryagin.__version__}")
        sys.exit(0)
    if not arguments or {"-h", "--help"} & {*rest} or (not COMMANDS.get(path, ("",))[0] and not rest):
        parser(path.split()).parse_args([*path.split(), "--help"])
    if not path or not COMMANDS[path][0]:
        raise _unknown(path, rest[0])
    if path in INNER and rest and not rest[0].startswith("-"):
        raise _unknown(path, rest[0])
    asked, printing = command(path), {"--print_config", "--print-config"}
    given = values_of([word for word in rest if word not in printing], asked.options, path)
    if printing & {*rest}:
        print(yaml.safe_dump(Call(asked, given, arguments).plain(), sort_keys=False), end="")
        sys.exit(0)
    if absent := missing(given, asked.options):
        raise ExperimentError(f"{path}: expected {' '.join(map(str.upper, absent))}, found nothing in "
                              f"{'their' if len(absent) > 1 else 'its'} place; see pontryagin {path} --help")
    return path, Call(asked, given, arguments)


def _path(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The name of the command, and what follows."""
    path, rest = "", list(arguments)
    while path in INNER and rest and f"{path} {rest[0]}".strip() in COMMANDS:
        path = f"{path} {rest.pop(0)}".strip()
    return path, rest


def _unknown(path: str, word: str) -> ExperimentError:
    """What stands in the place of a command is none."""
    inner = [one.removeprefix(path).strip() for one in COMMANDS if one.rpartition(" ")[0] == path]
    if word.startswith("-"):
        return ExperimentError(f"{shown(word)}: options follow the {INNER[path]}, one of {', '.join(inner)}")
    return unknown(INNER[path], [word], inner)
