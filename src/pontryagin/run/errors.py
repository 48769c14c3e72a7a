"""What can be wrong with a request, a setting, a file or a missing package: one line, before any work."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import Any


class ExperimentError(ValueError):
    """A setting, a folder or a file is wrong: says what was expected, found, and what to do."""


def shown(value: object) -> str:
    """A value in an error, short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text):,} characters)"


def unknown(what: str, names: Iterable[str], known: Iterable[str]) -> ExperimentError:
    """That there is no such method, set, option, ...: which names are meant, if some are near, and all that
    there are. what: the kind of thing, a singular."""
    wrong, there = list(dict.fromkeys(names)), list(known)
    near = [one for name in wrong[:3] for one in nearest(name, there)]
    hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    blanks = [name for name in wrong if " " in name and set(name.split()) <= {*there}]
    if blanks:
        hint = f"; write {','.join(blanks[0].split())}, with commas and no blanks"
    return ExperimentError(f"unknown {what} {', '.join(map(shown, wrong[:3]))}: expected "
                           f"{', '.join(there) or 'none'}{hint}")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Those that somebody may have meant, at most two: dashes, blanks and capitals aside."""
    plain = {_letters(one): one for one in known}
    if same := plain.get(_letters(name)):
        return [same]
    return [plain[one] for one in get_close_matches(_letters(name), plain, n=2, cutoff=0.75)]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


EXTRAS = {"matplotlib": "plots", "scipy": "analysis", "sklearn": "data", "pytorch_optimizer": "baselines",
          "tensorboard": "track", "numba": "fast"}
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
