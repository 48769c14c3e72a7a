"""What can be wrong with a request, a setting, a file or a missing package: one line, before any work."""

from importlib import import_module
from typing import Any


class ExperimentError(ValueError):
    """A setting, a folder or a file is wrong: says what was expected, found, and what to do."""


def at_least(least: int, **settings: int | None) -> None:
    """Raises ExperimentError for a setting below that; None counts as not given."""
    for name, value in settings.items():
        if value is not None and value < least:
            raise ExperimentError(f"--{name.replace('_', '-')}: expected a number >= {least}, found {value}")


EXTRAS = {"matplotlib": "plots", "scipy": "analysis", "sklearn": "data", "pytorch_optimizer": "baselines",
          "tensorboard": "track"}
"""The extra of this package that brings each, by the name that it is imported by."""
_NAMES = {"sklearn": "scikit-learn", "pytorch_optimizer": "pytorch-optimizer"}
"""By which an index knows them, where that is another name."""


class MissingExtraError(ExperimentError):
    """What was asked for needs a package that is not there: says which, and how to install it."""


def need(module: str, what: str, instead: str = "") -> Any:
    """The module, of one of the packages in EXTRAS. what: asks for it, a singular; instead: what else can be
    done. Raises MissingExtraError."""
    package = module.partition(".")[0]
    try:
        import_module(package)
        return import_module(module)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == package
        state = "is not installed" if absent else f"cannot be imported ({' '.join(str(error).split())})"
        other = f", or {instead}" if instead else ""
        raise MissingExtraError(f"{what} needs {_NAMES.get(package, package)}, which {state}: pip install "
                                f"'pontryagin[{EXTRAS[package]}]'{other}") from error
