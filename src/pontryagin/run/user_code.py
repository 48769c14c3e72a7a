"""A user's own classes and functions by import path, and calls that say what went wrong and where."""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from torch import Tensor

from pontryagin.run.errors import ExperimentError


def import_object(path: str, what: str) -> Callable[..., Any]:
    """The class or function `package.module:name`; the current folder is on the import path. what: its role,
    for errors.

    Raises ExperimentError when the module is not found or cannot be imported, or has no such class or
    function.
    """
    module_name, colon, name = path.partition(":")
    parts = (*module_name.split("."), *name.split("."))
    if not colon or not all(part.isidentifier() for part in parts):
        hint = ""
        if module_name.endswith(".py"):
            dotted = os.path.relpath(module_name[:-3]).lstrip(f".{os.sep}").replace(os.sep, ".")
            hint = f"; for a file {module_name} write {dotted}:{name or 'name'}"
        raise ExperimentError(f"{what} {path!r}: expected package.module:name{hint}")
    module = _import(module_name, f"{what} {path!r}")
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            close = get_close_matches(part, [key for key in vars(found) if not key.startswith("_")], n=3,
                                      cutoff=0.5)
            raise ExperimentError(f"{what} {path!r}: {_origin(module)} has no {part!r}"
                                  + (f"; did you mean {' or '.join(close)}?" if close else "")) from None
    if not callable(found):
        raise ExperimentError(f"{what} {path!r}: expected a class or function, found {type(found).__name__}")
    return found


def call(function: Callable[..., Any], arguments: Mapping[str, Any], what: str) -> Any:
    """function(**arguments). Raises ExperimentError for arguments it does not take and for what it raises."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        signature = None
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise ExperimentError(f"{what}: takes {signature}, was given {_listed(arguments)}: "
                                  f"{error}") from error
    try:
        return function(**arguments)
    except (ExperimentError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ExperimentError(f"{what}: {cause(error)}") from error


def _import(name: str, what: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ExperimentError(f"{what}: no module named {error.name!r}, neither in the current folder "
                                  f"{here} nor installed") from error
        raise ExperimentError(f"{what}: cannot be imported: {cause(error)}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ExperimentError(f"{what}: cannot be imported: {cause(error)}") from error


def cause(error: BaseException) -> str:
    """In one line, not long: the error, and the place in somebody's code where it came up."""
    message = " ".join(_words(error).split()) or "no message"
    message = message if len(message) <= 200 else f"{message[:200]}..."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if not frame.filename.startswith("<")]
    own = [frame for frame in frames if frame.filename != __file__
           and os.sep + "importlib" + os.sep not in frame.filename]
    there = own and not isinstance(error, SyntaxError)
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if there else ""
    return f"{type(error).__name__}: {message}{place}"


def _words(error: BaseException) -> str:
    """What an error of somebody's says, if it can."""
    try:
        return str(error)
    except Exception as unspoken:  # noqa: BLE001 # of a class that somebody has written
        return f"its __str__ raises {type(unspoken).__name__}"


def _origin(module: ModuleType) -> str:
    return f"module {module.__name__} ({getattr(module, '__file__', None) or 'no file'})"


def kind_of(item: object) -> str:
    """In words, for errors."""
    if isinstance(item, (tuple, list)):
        more = f", ... ({len(item):,} in all)" if len(item) > _FEW else ""
        return f"({', '.join(map(kind_of, item[:_FEW]))}{more})"
    if isinstance(item, Mapping):
        return f"a {type(item).__name__} of {', '.join(map(str, list(item)[:_FEW])) or 'nothing'}"
    return f"a tensor of shape {tuple(item.shape)}" if isinstance(item, Tensor) else type(item).__name__


_FEW = 4
"""Of many things that an error names."""


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
