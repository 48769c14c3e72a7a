"""Settings as options: the fields of dataclasses become the options of a command, and what the user gave
becomes values of those fields."""

import os
import shlex
from argparse import ArgumentParser, HelpFormatter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from pontryagin.cli.folding import folded
from pontryagin.cli.kinds import is_flag, is_mapping, read

if TYPE_CHECKING:
    from rich.console import Console

Settings = TypeVar("Settings")
_GOING_ON = ("resume", "report_only")
"""Options of what works with a folder that there is."""


MOST_USED = ("model", "data", "loss", "method", "methods", "lr", "tune", "epochs", "iterations", "seeds",
             "out", "quick", "resume", "overwrite")
"""Options that stand first in every help."""
_FEW = 4
"""Other options that need no heading of their own."""


class Help(HelpFormatter):
    """Lines as wide as the terminal; examples as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


@dataclass(frozen=True)
class Command:
    """What a command does, and what it takes.

    run: does it; whether it was interrupted. settings: dataclasses; their fields made by `option` are the
    options, a name that several have being that of the first. description: by default the first one's
    docstring. without: names of fields that are no options here. defaults, helps: in the place of the fields'
    own. quick: values that --quick puts in the place of those given.
    """

    run: Callable[["Call"], bool]
    settings: tuple[type, ...]
    description: str = ""
    without: Set[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    helps: Mapping[str, str] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def options(self) -> dict[str, tuple[Field[Any], Any]]:
        """By name: a field and its type."""
        return {name: (one, hint) for settings in reversed(self.settings)
                for name, (one, hint) in options_of(settings).items() if name not in self.without}

    def default(self, name: str) -> Any:
        """Of an option; MISSING for one that must be given."""
        one, hint = self.options[name]
        usual = one.default if one.default_factory is MISSING else one.default_factory()
        found = self.defaults.get(name, usual)
        return read(hint, found) if isinstance(found, str) and hint is not str else found

    def describe(self, parser: ArgumentParser) -> None:
        """Description and options for the help, which is all that the parser is for."""
        parser.description = (self.description
                              or " ".join(str(self.settings[0].__doc__).split())).replace("%", "%%")
        places = [name for name in self.options if self.default(name) is MISSING]
        parser.usage = " ".join([parser.prog, *map(str.upper, places), "[options]"])
        used = [name for name in MOST_USED if name in self.options]
        more = parser.add_argument_group("more options") if len(self.options) > len(used) + _FEW else parser
        for name in [*used, *(name for name in self.options if name not in used)]:
            one, hint = self.options[name]
            text = self.helps.get(name, one.metadata["help"]).replace("%", "%%")
            default, flag = self.default(name), f"--{name.replace('_', '-')}"
            if default is MISSING:
                parser.add_argument(name, metavar=name.upper(), help=text)
            elif is_flag(hint):
                (parser if name in used else more).add_argument(flag, action="store_true", help=text)
            else:
                word = "X" if is_mapping(hint) else name.rpartition("_")[2].upper()
                told = "" if default in (None, {}) else f" (default: {_word(default)})".replace("%", "%%")
                (parser if name in used else more).add_argument(
                    f"{flag}.NAME" if is_mapping(hint) else flag, metavar=word, help=text + told)
        more.add_argument("--config", metavar="FILE",
                          help="a YAML file with options, as --print_config writes it")
        more.add_argument("--print_config", action="store_true", help="print all options as YAML, and end")


@dataclass(frozen=True)
class Call:
    """A command as it was called. given: by name, the values of the options that the user gave, on the
    command line or in a file of --config. arguments: as typed."""

    command: Command
    given: Mapping[str, Any]
    arguments: Sequence[str]

    @cached_property
    def values(self) -> dict[str, Any]:
        """Of every option, as the settings have it, --quick heeded."""
        found = {name: self.given.get(name, self.command.default(name)) for name in self.command.options}
        if found.get("out") and "out" not in self.given:
            found["out"] = self._folder(found)
        return found | (dict(self.command.quick) if found.get("quick") else {})

    def _folder(self, found: Mapping[str, Any]) -> Path:
        """Where the user names none: the usual one, with a number where that is taken already; to go on, the
        last of these. Of several processes all take the usual one."""
        from pontryagin.run.files import free_folder, last_folder

        usual: Path = found["out"]
        if found.get("overwrite") or "TORCHELASTIC_RUN_ID" in os.environ:
            return usual
        return last_folder(usual) if any(map(found.get, _GOING_ON)) else free_folder(usual)

    def of(self, settings: type) -> dict[str, Any]:
        """The values for one of the dataclasses."""
        return {name: self.values[name] for name in options_of(settings) if name in self.values}

    def make(self, settings: type[Settings], /, **others: Any) -> Settings:
        """One of the dataclasses, with other values where these are named."""
        return settings(**{**self.of(settings), **others})

    @property
    def line(self) -> str:
        """The command line, for the files of a run."""
        return shlex.join(["pontryagin", *self.arguments])

    @cached_property
    def console(self) -> "Console":
        """Of several processes one speaks."""
        from rich.console import Console

        from pontryagin.run.processes import present

        return Console(quiet=present().rank > 0)

    def say(self, *texts: object) -> None:
        """Lines that stay; those that are empty are left out."""
        for text in filter(None, map(str, texts)):
            # words are wrapped on a terminal alone: what is read by programs keeps its lines
            text = folded(text, self.console.width) if self.console.is_terminal else text
            self.console.print(text, highlight=False, soft_wrap=not self.console.is_terminal, markup=False)

    def plain(self) -> dict[str, Any]:
        """All options as YAML has them."""
        return {name: _word(value) if isinstance(value, (Path, tuple)) else value
                for name in self.command.options
                if (value := self.given.get(name, self.command.default(name))) is not MISSING}


def options_of(settings: type) -> dict[str, tuple[Field[Any], Any]]:
    """The fields with a help text and their types, by name."""
    hints = get_type_hints(settings)
    return {one.name: (one, hints[one.name]) for one in fields(settings) if "help" in one.metadata}


def _word(value: Any) -> str:
    """As the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
