"""YAML as the command line takes it: files of options, and the values of options within others."""

import re
from pathlib import Path
from typing import Any

import yaml

from pontryagin.run.content import read_bytes
from pontryagin.run.errors import ExperimentError

_LARGEST = 1 << 20
"""Bytes of a file: a thousand times what all options of a command take."""
_SCALARS = {
    "null": r"~|null|Null|NULL|", "bool": r"true|True|TRUE|false|False|FALSE", "int": r"[-+]?[0-9]{1,400}",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"}
"""What is not a word, as in YAML 1.2: `yes`, `on`, `12:30` and dates are words, 1e-3 is a number. Of an int
no more digits than Python takes."""


class _Loader(yaml.SafeLoader):
    """No references, which make a small file large, and no key twice."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 # as of SafeLoader

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As of SafeLoader."""
        if self.check_event(yaml.AliasEvent):
            raise ValueError("a reference (*) is not taken")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """As of SafeLoader."""
        found = super().construct_mapping(node, deep)
        if len(found) != len(node.value):
            raise ValueError("a key is there twice")
        return found

    def construct_int(self, node: Any) -> int:
        """Decimal; as of SafeLoader a leading 0 is octal. The tag !!int may stand before anything."""
        return int(_fitting("int", self.construct_scalar(node)))

    def construct_float(self, node: Any) -> float:
        """As Python reads it."""
        text = _fitting("float", self.construct_scalar(node), "int")
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _fitting(*kinds: Any) -> str:
    """The text, if it is of one of these kinds of _SCALARS."""
    kind, text, *others = kinds
    if not any(re.fullmatch(_SCALARS[one], str(text)) for one in (kind, *others)):
        raise TypeError
    return str(text)


for _tag, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), None)
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", getattr(_Loader, f"construct_{_tag}"))


def parsed(text: str) -> Any:
    """What a text says. Raises ValueError."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"{reason}{place}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        raise ValueError("a tag (!!...) does not fit its value") from error


def options_in(path: Path) -> dict[str, Any]:
    """The options in a file of --config, by name. Raises ExperimentError."""
    expected = f"--config {path}: expected a YAML file of options, a line each as `epochs: 5`, found"
    try:
        content = read_bytes(path, _LARGEST + 1)
    except OSError as error:
        raise ExperimentError(f"--config {path}: cannot be read ({error.strerror})") from error
    if len(content) > _LARGEST:
        raise ExperimentError(f"{expected} more than {_LARGEST} bytes")
    try:
        found = parsed(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{expected} bytes that are not UTF-8") from error
    except ValueError as error:
        raise ExperimentError(f"{expected} an error: {error}") from error
    if not isinstance(found, dict) or not found:
        kind = "nothing" if not found else f"a {type(found).__name__}"
        raise ExperimentError(f"{expected} {kind}")
    return found
