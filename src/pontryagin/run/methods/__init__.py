"""The methods of training, each by the name that options, tables and figures use."""

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module

from pontryagin.run.errors import ExperimentError, unknown
from pontryagin.run.methods.method import Method, MethodStyle
from pontryagin.run.study import choose as named

__all__ = ["BENCH_ONLY", "METHODS", "Method", "MethodStyle", "choose", "of_methods"]

_FILES = ("emsa", "multilevel", "paper_emsa", "gradient", "schedule_free", "muon", "soap", "lion", "discrete")
"""In the order of tables. A new method is a file with its Method, and the file's name here."""
_ALL = [method for file in _FILES for method in vars(import_module(f"{__name__}.{file}")).values()
        if isinstance(method, Method)]
METHODS = {method.name: method for method in _ALL if not method.bench_only}
BENCH_ONLY = {method.name: method for method in _ALL if method.bench_only}


def choose(names: Sequence[str] | None, methods: Mapping[str, Method] = METHODS) -> list[Method]:
    """The methods with these names, in the order of `methods`; all if None, also those whose package is
    missing. Raises ExperimentError for a name that is unknown or whose package is missing."""
    return list(methods.values()) if names is None else named("method", names, methods)


def of_methods(what: str, given: Collection[str], running: Collection[str], known: Collection[str]) -> None:
    """That rates, options or limits are given for methods that run. Raises ExperimentError."""
    if wrong := [name for name in given if name not in known]:
        raise unknown("method", wrong, known)
    if idle := [name for name in given if name not in running]:
        raise ExperimentError(f"--{what}.{idle[0]}: {idle[0]} is not run, so this would have no effect: "
                              f"expected one of {', '.join(running)}")
