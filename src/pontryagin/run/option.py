"""A field of settings that the command line takes as an option too, and the numbers that it may be."""

import os
from copy import copy
from dataclasses import MISSING, field, fields
from typing import Any

from pontryagin.run.errors import ExperimentError, shown

MANY = 10**9
"""No number that counts something is larger: more than any run has of it."""


MOST_THREADS = 64 * (os.cpu_count() or 1)
"""Many more than there are cores, of which systems may refuse to begin as many."""
MOST_WORKERS = 256
"""More read no faster on any machine."""
LAST_SEED = 2**32 - 1
"""numpy takes no larger one."""
SEEDS = "runs of every method, on other weights and batches: how many, or their seeds, as 1,5,9"
Seeds = int | tuple[int, ...]
"""How many, 0, 1, ...; or which."""
_MOST_SEEDS = 10_000


def seed_numbers(seeds: Seeds, first: int = 0) -> tuple[int, ...]:
    """Those that are meant, a number counting from `first`. Raises ExperimentError."""
    if isinstance(seeds, int) and not 1 <= seeds <= _MOST_SEEDS:
        raise ExperimentError(f"--seeds: expected 1 to {_MOST_SEEDS} runs, or the seeds with commas, found "
                              f"{seeds}")
    found = tuple(range(first, first + seeds)) if isinstance(seeds, int) else seeds
    if not 1 <= len(found) == len(set(found)) or not 0 <= min(found) <= max(found) <= LAST_SEED:
        raise ExperimentError(f"--seeds: expected different seeds from 0 to {LAST_SEED}, found "
                              f"{shown(seeds)}")
    return found


def option(help: str, default: Any = MISSING, *, least: float | None = None,
           most: float | None = None) -> Any:
    """A dataclass field with the help text of its option; without a default it is asked for by position.

    The option has the field's name, with dashes, its type and its default (`cli.options`). least, most: of a
    number, or of each in a tuple; `check_numbers` refuses others.
    """
    metadata = {"help": help, "least": least, "most": MANY if least is not None and most is None else most}
    if isinstance(default, dict):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_numbers(settings: Any) -> None:
    """Of a dataclass, that the fields made by `option` are within their bounds. Raises ExperimentError."""
    for one in fields(settings):
        check_number(one.name, getattr(settings, one.name), one.metadata)


def check_number(name: str, value: Any, bounds: Any) -> None:
    """That a number, or each of a tuple, is within bounds["least"] and bounds["most"]; other values are left
    aside. Raises ExperimentError."""
    least, most = bounds.get("least"), bounds.get("most")
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, (int, float)) and not (
                (least is None or one >= least) and (most is None or one <= most)):
            expected = f"a number >= {least:g}" if one < (least
                                                          or 0) else f"a number from {least:g} to {most:g}"
            raise ExperimentError(f"--{name.replace('_', '-')}: expected {expected}, found {one}")
