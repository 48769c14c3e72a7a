"""Settings as options: the fields of dataclasses become the options of a command, and what the user gave
becomes values of those fields."""

import shlex
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from pontryagin.run.errors import ExperimentError

if TYPE_CHECKING:
    from rich.console import Console

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Command:
    """What a command does, and what it takes.

    run: does it; whether it was interrupted. settings: dataclasses; their fields made by `option` are the
    options, a name that several have being that of the first. description: by default the first one's
    docstring. without: names of fields that are no options here. defaults, helps: in the place of the fields'
    own. quick: values that --quick puts in the place of those given. config: whether it takes --config FILE.
    """

    run: Callable[["Call"], bool]
    settings: tuple[type, ...]
    description: str = ""
    without: Set[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    helps: Mapping[str, str] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    config: bool = True

    @cached_property
    def options(self) -> dict[str, tuple[Field[Any], Any]]:
        """By name: a field and its type."""
        return {name: (one, hint) for settings in reversed(self.settings)
                for name, (one, hint) in options_of(settings).items() if name not in self.without}

    def add_to(self, parser: ArgumentParser) -> None:
        """Description and options: a list is a text with commas or `all`, a path a text."""
        parser.description = self.description or " ".join(str(self.settings[0].__doc__).split())
        if self.config:
            parser.add_argument("--config", action="config", help="a YAML file with options")
        for name, (one, hint) in self.options.items():
            usual = one.default if one.default_factory is MISSING else one.default_factory()
            default, flag = self.defaults.get(name, usual), f"--{name.replace('_', '-')}"
            kind, text = _kind(hint), self.helps.get(name, one.metadata["help"])
            typed = str if kind is Path or get_origin(kind) is tuple else kind
            if default is MISSING:
                parser.add_argument(name, type=typed, help=text)
            elif kind is bool:
                parser.add_argument(flag, action="store_true", help=text)
            elif get_origin(kind) is tuple:
                parser.add_argument(flag, type=str, default=default if isinstance(default, str) else
                                    ",".join(map(str, default or ("all",))), help=text)
            else:
                parser.add_argument(flag, type=typed if kind is hint else typed | None,
                                    default=str(default) if isinstance(default, Path) else default, help=text)


@dataclass(frozen=True)
class Call:
    """A command as it was called. options: all of them by name, with defaults; arguments: as typed; again:
    parses them without defaults."""

    command: Command
    options: Namespace
    arguments: Sequence[str]
    again: Callable[[], Namespace]

    @cached_property
    def given(self) -> set[str]:
        """Names of the options that the user gave, on the command line or in a file of --config."""
        found = self.again()
        return {name for name in self.command.options if name in found}

    @cached_property
    def values(self) -> dict[str, Any]:
        """Of every option, as the settings have it, --quick heeded. Raises ExperimentError."""
        read = {name: _read(name, _kind(hint), self.options[name])
                for name, (_, hint) in self.command.options.items()}
        return read | (dict(self.command.quick) if read.get("quick") else {})

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
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def options_of(settings: type) -> dict[str, tuple[Field[Any], Any]]:
    """The fields with a help text and their types, by name."""
    hints = get_type_hints(settings)
    return {one.name: (one, hints[one.name]) for one in fields(settings) if "help" in one.metadata}


def _kind(hint: Any) -> Any:
    """The type, where it may be None too."""
    if NoneType not in get_args(hint):
        return hint
    return Union[tuple(kind for kind in get_args(hint) if kind is not NoneType)]  # noqa: UP007 - of one: itself


def _read(name: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) is tuple:
        try:
            return None if value == "all" else tuple(get_args(kind)[0](one.strip())
                                                     for one in value.split(","))
        except ValueError as error:
            raise ExperimentError(f"--{name}: expected whole numbers with commas, found {value!r}") from error
    return Path(value) if kind is Path and value is not None else _plain(value)


def _plain(value: Any) -> Any:
    """Namespaces within as dicts."""
    if isinstance(value, (dict, Namespace)):
        return {name: _plain(one) for name, one in dict(value).items()}
    return value
