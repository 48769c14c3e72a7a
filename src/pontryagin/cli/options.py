"""Settings as options: the fields of dataclasses become the options of a command, and what the user gave
becomes values of those fields."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from pontryagin.run.errors import ExperimentError

if TYPE_CHECKING:
    from rich.console import Console

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Command:
    """What a command does, and what it takes.

    run: does it; whether it was interrupted. settings: dataclasses; their fields made by `option` are the
    options, a name that several have being that of the first. without: names of fields that are no options
    here. defaults,
    helps: in the place of the fields' own. quick: values that --quick puts in the place of those given.
    config: whether it takes --config FILE.
    """

    run: Callable[["Call"], bool]
    description: str
    settings: tuple[type, ...]
    without: Set[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    helps: Mapping[str, str] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    config: bool = True

    def add_to(self, parser: ArgumentParser) -> None:
        """Its options."""
        if self.config:
            parser.add_argument("--config", action="config", help="a YAML file with options")
        for one in self.options.values():
            one.add_to(parser, self.helps.get(one.name, one.help), self.defaults.get(one.name, one.default))

    @cached_property
    def options(self) -> dict[str, "Option"]:
        """By name."""
        return {one.name: one for settings in reversed(self.settings) for one in options_of(settings)
                if one.name not in self.without}


@dataclass(frozen=True)
class Call:
    """A command as it was called: all its options by name, with defaults; what was typed; and, on demand, the
    options that the user gave there or in a file of --config, without defaults."""

    command: Command
    options: Namespace
    arguments: Sequence[str]
    again: Callable[[], Namespace]

    @cached_property
    def given(self) -> set[str]:
        """Names of the options that the user gave."""
        found = self.again()
        return {name for name in self.command.options if name in found}

    @cached_property
    def values(self) -> dict[str, Any]:
        """Of every option, as the settings have it, --quick heeded."""
        read = {name: one.read(self.options[name]) for name, one in self.command.options.items()}
        return read | (dict(self.command.quick) if read.get("quick") else {})

    def of(self, settings: type) -> dict[str, Any]:
        """The values for one of the dataclasses."""
        return {one.name: self.values[one.name] for one in options_of(settings) if one.name in self.values}

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


@dataclass(frozen=True)
class Option:
    """A field of settings, on the command line. hint: its type, less None; default MISSING: asked for by
    position."""

    name: str
    hint: Any
    optional: bool
    help: str
    default: Any

    def add_to(self, parser: ArgumentParser, help: str, default: Any) -> None:
        """As an option: a list as a text with commas or `all`, a path as a text."""
        name = f"--{self.name.replace('_', '-')}"
        if self.hint is bool:
            parser.add_argument(name, action="store_true", help=help)
        elif default is MISSING:
            parser.add_argument(self.name, type=self._typed, help=help)
        elif self._is_list:
            shown = default if isinstance(default, str) else ",".join(map(str, default or ("all",)))
            parser.add_argument(name, type=str, default=shown, help=help)
        else:
            shown = str(default) if isinstance(default, Path) else default
            parser.add_argument(name, type=self._typed | None if self.optional else self._typed,
                                default=shown, help=help)

    def read(self, value: Any) -> Any:
        """As the field has it. Raises ExperimentError."""
        if self._is_list:
            return None if value == "all" else tuple(map(self._item, value.split(",")))
        if self.hint is Path:
            return None if value is None else Path(value)
        return _plain(value)

    @property
    def _is_list(self) -> bool:
        return get_origin(self.hint) is tuple

    @property
    def _typed(self) -> Any:
        return str if self.hint is Path else self.hint

    def _item(self, text: str) -> Any:
        kind = get_args(self.hint)[0]
        try:
            return kind(text.strip())
        except ValueError as error:
            raise ExperimentError(f"--{self.name}: expected whole numbers with commas, found {text!r}") from error


def options_of(settings: type) -> Iterator[Option]:
    """Of its fields that have a help text."""
    hints = get_type_hints(settings)
    for one in fields(settings):
        if "help" in one.metadata:
            kinds = [kind for kind in get_args(hints[one.name]) if kind is not NoneType]
            optional = NoneType in get_args(hints[one.name])
            default = one.default if one.default_factory is MISSING else one.default_factory()
            yield Option(one.name, kinds[0] if optional else hints[one.name], optional, one.metadata["help"],
                         default)


def _plain(value: Any) -> Any:
    """Namespaces within as dicts."""
    if isinstance(value, (dict, Namespace)):
        return {name: _plain(one) for name, one in dict(value).items()}
    return value
