"""Annotations of the core are checked whenever its functions are called, the sizes of named axes too.

jaxtyping's own decorator checks arguments twice and prepares a long message at every call: three quarters of
a step of EMSA on a small network. Here beartype checks once, and a named axis has one size within a call.
"""

from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import partial, wraps
from inspect import isclass, isfunction
from typing import Any, get_args, get_type_hints

import beartype
import jaxtyping

typechecker = beartype.beartype(conf=beartype.BeartypeConf(violation_type=jaxtyping.TypeCheckError))
_jaxtyped = jaxtyping.jaxtyped
_shapes: dict[Any, bool] = {}
"""By the code of a function: it may be made again and again within another."""


def install(packages: Sequence[str]) -> None:
    """For what is imported from these from now on. Wrong types raise jaxtyping.TypeCheckError."""
    jaxtyping.jaxtyped = _checked  # what the hook decorates with
    jaxtyping.install_import_hook(packages, "checked_types.typechecker")


def _checked(what: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    if what is None:
        return partial(_checked, typechecker=typechecker)
    if isclass(what):
        if is_dataclass(what) and "__init__" in vars(what):
            what.__init__ = _checked(what.__init__, typechecker=typechecker)
        return what
    if not isfunction(what):
        return _jaxtyped(what, typechecker=typechecker)
    checked = typechecker(what)
    if what.__code__ not in _shapes:
        _shapes[what.__code__] = _names_a_shape(what)
    config, names_a_shape = jaxtyping.config, _shapes[what.__code__]

    @wraps(what)
    def as_asked(*args: Any, **kwargs: Any) -> Any:
        if config.jaxtyping_disable:
            return what(*args, **kwargs)
        if not names_a_shape:
            return checked(*args, **kwargs)
        with _jaxtyped("context"):  # type: ignore[call-overload] # an axis has one size in here
            return checked(*args, **kwargs)

    as_asked.__code__ = as_asked.__code__.replace()  # its own: torch compiles the same eight times only
    return as_asked


def _names_a_shape(function: Callable[..., Any]) -> bool:
    """Also where that cannot be known."""
    try:
        return any(map(_is_shape, get_type_hints(function, include_extras=True).values()))
    except (NameError, TypeError, AttributeError, SyntaxError):
        return True


def _is_shape(hint: Any) -> bool:
    if isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_is_shape, hint if isinstance(hint, list) else get_args(hint)))
