"""The commands by name, each with the module whose COMMANDS has it and a line of help.

A module is imported, and options are added, for the commands that are named in the arguments: the version and
the lists of commands come without torch.
"""

from collections.abc import Collection, Sequence
from importlib import import_module

from jsonargparse import ArgumentParser, Namespace

import pontryagin
from pontryagin.cli.options import Call, Command

COMMANDS = {
    "train": ("training", "train a model"),
    "compare": ("training", "train a model by several methods, side by side"),
    "predict": ("files", "evaluate a trained model"),
    "reproduce": ("", "repeat an experiment of the paper"),
    "reproduce sine": ("studies", "Figure 1: sin x from a good and a poor initialization"),
    "reproduce binary": ("studies", "weights in {-1, 1}: Li and Hao (2018), MNIST"),
    "reproduce ternary": ("studies", "weights in {-1, 0, 1}: Li and Hao (2018), MNIST"),
    "reproduce saddle": ("studies", "the Hessian's spectrum at the zero initialization of the sine"),
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


def parser(wanted: Collection[str] | None = None) -> ArgumentParser:
    """The whole command line, or so much of it as is named in the arguments. Most commands take --config FILE
    (YAML) and --print_config too."""
    top = ArgumentParser(allow_abbrev=False, prog="pontryagin", version=pontryagin.__version__,
                         description=DESCRIPTIONS[""])
    groups = {"": top.add_subcommands(dest=INNER[""])}
    for path, (module, line) in COMMANDS.items():
        group, _, name = path.rpartition(" ")
        own = ArgumentParser(allow_abbrev=False, description=DESCRIPTIONS.get(path))
        if module and (wanted is None or name in wanted):
            command(path).add_to(own)
        groups[group].add_subcommand(name, own, help=line)
        if path in INNER:
            groups[path] = own.add_subcommands(dest=INNER[path], required=not module)
    return top


def called(arguments: Sequence[str]) -> tuple[str, Call]:
    """The command that the arguments ask for, and its call. Exits with 2 and what is wrong with them, and
    with 0 after --help, --version and --print_config."""
    parsed = parser(arguments).parse_args(arguments)
    path = ""
    while path in INNER and _of(parsed, path)[INNER[path]] is not None:
        path = f"{path} {_of(parsed, path)[INNER[path]]}".strip()
    return path, Call(command(path), _of(parsed, path), arguments,
                      lambda: _of(parser(arguments).parse_args(arguments, defaults=False), path))


def _of(parsed: Namespace, path: str) -> Namespace:
    """What was parsed for this command."""
    for name in path.split():
        parsed = parsed[name]
    return parsed
