"""The kinds of values that options have: each is read from a word of the command line, or from a value of a
YAML file, as the one type that the settings have. All say in one way what was expected and found."""

import re
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pontryagin.cli.document import parsed
from pontryagin.run.errors import shown

Read = Callable[[Any], Any]
"""From a text, or from what YAML had. Raises ValueError, which says what was expected."""
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
"""Of what Python takes, neither digits of other scripts nor 1_0."""
_LONGEST, _DEEPEST, _MOST = 4096, 20, 1 << 16
"""Characters of a text (more than a path may have), mappings within each other, entries of a list."""


def read(hint: Any, value: Any) -> Any:
    """The value that an option of this type gets from a word or from YAML; None, `all` for a tuple, where the
    type has None. Raises ValueError: expected ..., found ..."""
    kinds = [kind for kind in _union(hint) if kind is not NoneType]
    if value is None and NoneType in _union(hint):
        return None
    for kind in kinds:
        try:
            return reader(kind, NoneType in _union(hint))(value)
        except _OtherError:
            continue
    raise ValueError(f"expected {' or '.join(dict.fromkeys(map(words, kinds)))}, found {_found(value)}")


def is_mapping(hint: Any) -> bool:
    """Whether parts of it may be given by name, as --rates.adam."""
    return any(get_origin(kind) is dict for kind in _union(hint))


def is_flag(hint: Any) -> bool:
    """Whether it stands without a value."""
    return hint is bool


def words(kind: Any) -> str:
    """What is expected of a kind."""
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(map(str, get_args(kind)))
    if origin is tuple:
        return {int: "whole numbers", float: "numbers"}.get(get_args(kind)[0], "names") + " with commas"
    if origin is dict:
        return "names with values, as --NAME.KEY VALUE or '{KEY: VALUE}'"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text",
            Path: "a path", Any: "numbers, words, lists or mappings"}[kind]


class _OtherError(ValueError):
    """It is no value of this kind; that of another it may be."""


def reader(kind: Any, optional: bool = False) -> Read:
    """Of one kind."""
    origin = get_origin(kind)
    if origin is Literal:
        return lambda value: _one_of(get_args(kind), value)
    if origin is tuple:
        return lambda value: _several(get_args(kind)[0], value, optional)
    if origin is dict:
        return lambda value: _mapping(get_args(kind)[1], value)
    return {int: _whole, float: _number, bool: _truth, str: _text, Path: _path, Any: _anything}[kind]


def _union(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _one_of(known: tuple[str, ...], value: Any) -> str:
    if value not in known:
        raise _OtherError
    return str(value)


def _whole(value: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 10**18:
        raise _OtherError
    return value


def _number(value: Any) -> float:
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        raise _OtherError
    try:
        found = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
    except OverflowError as error:
        raise _OtherError from error
    if found is None or not isfinite(found):
        raise _OtherError
    return found


def _truth(value: Any) -> bool:
    found = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise _OtherError
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _OtherError
    if len(value) > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST} characters, found {len(value):,}")
    if not value.isprintable():  # surrogates too, which stand for bytes that are not UTF-8
        raise ValueError(f"expected a text of printable characters in UTF-8, found {_found(value)}")
    return value


def _path(value: Any) -> Path:
    """With ~ and ~user as a shell has them."""
    text = _text(value)
    try:
        path = Path(text).expanduser()
        path.exists()
    except RuntimeError as error:
        raise ValueError(f"expected a path, found {text!r}, and there is no such user") from error
    except OSError as error:
        raise ValueError(f"expected a path, found {_found(text)} ({error.strerror})") from error
    return path


def _several(kind: Any, value: Any, optional: bool) -> tuple[Any, ...] | None:
    """A text with commas, or a list; `all` is None where that is allowed."""
    if optional and kind is str and value == "all":
        return None
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    if not parts or len(parts) > _MOST:
        raise _OtherError
    if isinstance(value, str):
        parts = [one.strip() for one in parts]
    return tuple(map(reader(kind), parts))


def _mapping(kind: Any, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = parsed(_text(value))
    if not isinstance(value, Mapping):
        raise _OtherError
    found = {}
    for key, part in value.items():
        if not isinstance(key, str) or not key:
            raise ValueError(f"expected names as keys, found {_found(key)}")
        try:
            found[key] = reader(kind)(part)
        except _OtherError:
            raise ValueError(f"{key[:60]}: expected {words(kind)}, found {_found(part)}") from None
        except ValueError as error:
            raise ValueError(f"{key[:60]}: {error}") from error
    return found


def leaf(text: str) -> Any:
    """A part of a mapping that was given by its name: what YAML makes of it, else the text."""
    try:
        return parsed(text)
    except ValueError:
        if text.lstrip().startswith(("[", "{")):
            raise
        return text


def _anything(value: Any) -> Any:
    """For code of others."""
    return _plain(value, 0)


def _plain(value: Any, depth: int) -> Any:
    """Numbers, words, lists and mappings of these."""
    if depth > _DEEPEST:
        raise ValueError(f"expected at most {_DEEPEST} lists or mappings within each other")
    if isinstance(value, list):
        return [_plain(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {_text(key): _plain(one, depth + 1) for key, one in value.items()}
    if value is None or isinstance(value, (bool, float)):
        return value
    return _whole(value) if isinstance(value, int) else _text(value) if value else value


def _found(value: Any) -> str:
    return "nothing" if value is None or value == "" else shown(value)
