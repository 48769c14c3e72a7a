"""The words after a command, and the files of --config, as values of its options."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any

from pontryagin.cli.document import options_in
from pontryagin.cli.kinds import is_flag, is_mapping, leaf, read
from pontryagin.run.errors import ExperimentError, nearest, shown
from pontryagin.run.option import check_number

Options = Mapping[str, tuple[Field[Any], Any]]
"""By name: a field and its type."""


def flag(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


def values_of(arguments: Sequence[str], options: Options, command: str) -> dict[str, Any]:
    """What was given, by name, on the command line and in files of --config; later words prevail. Raises
    ExperimentError."""
    given: dict[str, Any] = {}
    places = [name for name, (one, _) in options.items() if _by_position(one)]
    rest = iter(arguments)
    for word in rest:
        if not word.startswith("-") or word == "-":
            free = [name for name in places if name not in given]
            if not free:
                raise _stray(word, options, given, command)
            _take(given, options, free[0], "", word, free[0].upper())
            continue
        name, equals, text = word[2:].partition("=")
        if not word.startswith("--") or not name:
            raise _no_option(word, options, command)
        head, dot, key = name.partition(".")
        field = head.replace("-", "_")
        if dot and not key.strip("."):
            raise _no_option(f"--{name}", options, command)
        if field == "config" and not key:
            path = _read(Path, text if equals else _next(rest, word), "--config")
            for entry, content in options_in(path).items():
                _take_entry(given, options, entry, content, path, command)
            continue
        if field not in options:
            raise _no_option(f"--{name}", options, command)
        value: Any = text if equals else True if is_flag(options[field][1]) else _next(rest, word)
        _take(given, options, field, key, value, f"--{name[:80]}", words=True)
    return given


def missing(given: Mapping[str, Any], options: Options) -> list[str]:
    """What must be given and was not."""
    return [name for name, (one, _) in options.items() if _by_position(one) and name not in given]


def _by_position(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _take_entry(given: dict[str, Any], options: Options, entry: Any, value: Any, path: Path,
                command: str) -> None:
    """An option from a file."""
    head, _, key = str(entry).partition(".")
    name = head.replace("-", "_")
    if not isinstance(entry, str) or name not in options:
        near = nearest(str(entry), options)
        raise ExperimentError(f"--config {path}: {command} has no option {shown(entry)}"
                              + (f"; did you mean {near[0]}?" if near else f", see {command} --help"))
    _take(given, options, name, key, value, f"--config {path}: {entry}")


def _take(given: dict[str, Any], options: Options, name: str, key: str, value: Any, place: str,
          words: bool = False) -> None:
    """Put a value, or a part of one, into what is given. words: it comes from the command line."""
    one, hint = options[name]
    if key:
        if not is_mapping(hint):
            raise ExperimentError(f"{place}: {flag(name)} has no parts: give it a value of its own")
        value = _read(None, value, place) if words else value
        for part in reversed(key.split(".")):
            value = {part: value}
    found = _read(hint, value, place)
    check_number(name, found, one.metadata)
    given[name] = _merged(given[name], found) if isinstance(given.get(name), dict) and found else found


def _read(hint: Any, value: Any, place: str) -> Any:
    """Of this type; None: a part of a mapping."""
    try:
        return leaf(value) if hint is None else read(hint, value)
    except ValueError as error:
        raise ExperimentError(f"{place}: {error}") from error


def _merged(old: Any, new: Any) -> Any:
    """Mappings together, what is new in the place of what is old."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {name: _merged(old[name], value) if name in old else value for name, value in new.items()}


def _next(rest: Iterator[str], word: str) -> str:
    value = next(rest, None)
    if value is None or value.startswith("--"):
        found = "" if value is None else f", found the option {shown(value)}"
        raise ExperimentError(f"{word}: expected a value after it{found}")
    return value


def _no_option(word: str, options: Options, command: str) -> ExperimentError:
    near = nearest(word.partition(".")[0], map(flag, (*options, "config", "print_config", "help")))
    return ExperimentError(f"{command} has no option {shown(word)}"
                           + (f"; did you mean {' or '.join(near)}?" if near else f", see {command} --help"))


def _stray(word: str, options: Options, given: Mapping[str, Any], command: str) -> ExperimentError:
    """A word that belongs to no option; perhaps to the list before it."""
    last = list(given)[-1] if given else ""
    if last and isinstance(given[last], tuple):
        return ExperimentError(f"{command}: {shown(word)} belongs to no option; a list has commas and no "
                               f"blanks: {flag(last)} {','.join(map(str, given[last]))},{word[:60]}")
    return ExperimentError(f"{command}: {shown(word)} belongs to no option: an option begins with --, as "
                           f"{flag(next(iter(options)))}")
