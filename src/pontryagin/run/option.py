"""A field of settings that the command line takes as an option too."""

from copy import copy
from dataclasses import MISSING, field
from typing import Any


def option(help: str, default: Any = MISSING) -> Any:
    """A dataclass field with the help text of its option; without a default it is asked for by position.

    The option has the field's name, with dashes, its type and its default (`cli.options`).
    """
    if isinstance(default, dict):
        return field(default_factory=lambda: copy(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})
