"""The commands by name, each with a line of help and the module whose COMMANDS has it under that name.

A module is imported, and options are added, for the commands that are named in the arguments: the version and
the lists of commands come without torch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from jsonargparse import ArgumentParser, Namespace

import pontryagin
from pontryagin.cli.options import Call, Command


@dataclass(frozen=True)
class Entry:
    """module: that has the command; without one it is a group of others. kind: what inner commands are
    called."""

    help: str
    module: str = ""
    description: str = ""
    kind: str = ""
    inner: Mapping[str, "Entry"] = field(default_factory=dict)

    def command(self, name: str) -> Command:
        """What the module has under this name."""
        found: Command = import_module(f"pontryagin.cli.{self.module}").COMMANDS[name]
        return found

    def fill(self, parser: ArgumentParser, name: str, wanted: Collection[str] | None) -> None:
        """Add options and inner commands, as far as they are wanted (None: all)."""
        if self.module and (wanted is None or name in wanted):
            command = self.command(name)
            parser.description = command.description
            command.add_to(parser)
        if not self.inner:
            return
        commands = parser.add_subcommands(dest=self.kind, required=not self.module)
        for inner, entry in self.inner.items():
            own = ArgumentParser(allow_abbrev=False, description=entry.description)
            commands.add_subcommand(inner, own, help=entry.help)
            entry.fill(own, inner, wanted)


TOP = Entry("", kind="command", inner={
    "train": Entry("train a model", "training"),
    "compare": Entry("train a model by several methods, side by side", "training"),
    "predict": Entry("evaluate a trained model", "models"),
    "reproduce": Entry(
        "repeat an experiment of the paper", kind="experiment",
        description="Repeat an experiment of the literature on the maximum principle, beside baselines.",
        inner={
            "sine": Entry("Figure 1: sin x from a good and a poor initialization", "reproduce"),
            "binary": Entry("weights in {-1, 1}: Li and Hao (2018), MNIST", "reproduce"),
            "ternary": Entry("weights in {-1, 0, 1}: Li and Hao (2018), MNIST", "reproduce"),
            "saddle": Entry("the Hessian's spectrum at the zero initialization of the sine", "reproduce"),
            "certificate": Entry("rho = 2C with C measured, beside tuned Adam", "reproduce"),
            "mnist": Entry("Figure 2: MNIST", "reproduce"),
            "fashion-mnist": Entry("Figure 4: Fashion-MNIST", "reproduce"),
            "wall-clock": Entry("Figure 3 turned round: seconds to a goal, MNIST", "reproduce")}),
    "bench": Entry("measure speed", kind="benchmark", description="Measure speed, as ratios within one run.",
                   inner={
        "optimizers": Entry("EMSA beside tuned optimizers", "bench"),
        "scaling": Entry("extended MSA by several processes", "bench")}),
    "data": Entry("list and fetch data sets", "data", kind="action", inner={
        "fetch": Entry("fetch data sets into the cache", "data")}),
    "export": Entry("pack discrete weights into bits", "models"),
    "audit": Entry("audit a trained network stage by stage", "models"),
})


def parser(wanted: Collection[str] | None = None) -> ArgumentParser:
    """The whole command line, or so much of it as is named in the arguments. Commands take --config FILE
    (YAML) and --print_config too."""
    top = ArgumentParser(allow_abbrev=False, prog="pontryagin", version=pontryagin.__version__,
                         description="Deep learning as optimal control: training by Pontryagin's maximum "
                                     "principle.")
    TOP.fill(top, "", wanted)
    return top


def called(arguments: Sequence[str]) -> tuple[tuple[str, ...], Call]:
    """The names and the call of the command that the arguments ask for. Exits with 2 and one line where they
    are wrong, and with 0 after --help, --version and --print_config."""
    program = parser(arguments)
    parsed = program.parse_args(arguments)
    names, entry, own = [], TOP, parsed
    while entry.inner and own[entry.kind] is not None:
        names.append(own[entry.kind])
        own, entry = own[names[-1]], entry.inner[names[-1]]

    def again() -> Namespace:
        found = parser(arguments).parse_args(arguments, defaults=False)
        for name in names:
            found = found[name]
        return found

    return tuple(names), Call(entry.command(names[-1]), own, arguments, again)
