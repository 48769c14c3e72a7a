"""Which parameter of a module lies in which admissible set."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from pontryagin.errors import ProblemError
from pontryagin.problem.admissible.sets import MatrixSet

ModelSets = MatrixSet | Mapping[str, MatrixSet]
"""One set for every parameter with two axes or more; or sets by names of submodules, of parameters, or
patterns of them."""


def sets_by_parameter(model: nn.Module, request: ModelSets) -> dict[str, MatrixSet]:
    """The set of each constrained parameter.

    A parameter's name means that parameter. A submodule's name means its parameters with two axes or more,
    and a pattern ("blocks.*.linear", "*.weight") those of all parameters and submodules that it matches. A
    parameter's own name goes before submodules, of these the innermost goes first, and patterns come last.

    Raises ProblemError for a name that matches nothing and for two patterns that give one parameter different
    sets.
    """
    if isinstance(request, MatrixSet):
        request = {"*": request}
    if not isinstance(request, Mapping) or not request:
        raise ProblemError("admissible: expected a set such as Binary(), or a mapping from names to sets, "
                           f"found {request!r}")
    parameters = {name: parameter.ndim for name, parameter in model.named_parameters()}
    modules = {name for name, _ in model.named_modules() if name}
    found: dict[str, tuple[int, str]] = {}
    for key, one in request.items():
        if not isinstance(one, MatrixSet):
            raise ProblemError(f"admissible[{key!r}]: expected a set such as Binary() or Box(-1, 1), found "
                               f"{one!r}")
        names, rank = _matching(key, parameters, modules)
        for name in names:
            before = found.get(name)
            if before and before[0] == rank and request[before[1]] != one:
                raise ProblemError(f"admissible: {before[1]!r} and {key!r} give {name} different sets; name "
                                   "the parameter itself")
            if before is None or before[0] < rank:
                found[name] = (rank, key)
    return {name: request[found[name][1]] for name in parameters if name in found}


def _matching(key: str, parameters: Mapping[str, int], modules: set[str]) -> tuple[list[str], int]:
    """Names of parameters that a key means, and how much it goes before others."""
    if key in parameters:
        return [key], 1_000_000
    matrices = [name for name, axes in parameters.items() if axes > 1]
    if key in modules:
        names, rank = [name for name in matrices if name.startswith(key + ".")], 1 + len(key.split("."))
    else:
        inside = [module for module in modules if fnmatchcase(module, key)]
        names = [name for name in matrices if fnmatchcase(name, key)
                 or any(name.startswith(m + ".") for m in inside)]
        rank = 0
        if not inside and not any(fnmatchcase(name, key) for name in parameters):
            tops = ", ".join(sorted({name.split(".")[0] for name in parameters})) or "none"
            raise ProblemError(f"admissible: {key!r} is neither a parameter nor a submodule, nor a pattern "
                               f"of either; at the top the model has {tops}")
    if not names:
        raise ProblemError(f"admissible: {key!r} has no parameter with two axes or more; name the parameter "
                           "itself")
    return names, rank
