"""Which modules compute affine maps z = W x + b, and of which rows x: one entry a class, users' own among
them.

A module is taken for an affine map without a question only if its class computes that map itself: if it runs
the forward of a class that is registered. What else looks like one by its parameters (subclasses with a
forward of their own, a matrix with a vector, a scale) is a guess, or a choice of guesses (finding.py): the
first look at a training step tells whether sum u x^T is the gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pontryagin.affine.affine_map import AffineMap
from pontryagin.errors import ProblemError

Maps = Callable[[Any], Sequence[AffineMap | Sequence[AffineMap]]]
"""The maps that a module computes; where a look has to tell which of several one is, these as a sequence."""


@dataclass(frozen=True)
class Entry:
    """What register() was told of a class."""

    maps: Maps
    computed_by: tuple[str, ...]
    is_built_in: bool
    whole: Callable[[Any], AffineMap | None] | None


_ENTRIES: dict[type[nn.Module], Entry] = {}


def register(kind: type[nn.Module], maps: Maps, *, computed_by: Sequence[str] = ("forward",),
             whole: Callable[[Any], AffineMap | None] | None = None) -> None:
    """Say that modules of a class compute affine maps: EMSA, the closed form of the explicit solver and the
    audit then take their parameters for stages, with counts and kinds of step that follow from the rows.

        affine.register(MyLinear, lambda module: [affine.dense(module, "kernel", "offset")])

    kind: a class; its subclasses too, as long as they leave `computed_by` alone. maps: from a module to its
    maps, one a parameter that is a W; where outputs tell the costate at z, EMSA's first looks verify that sum
    u x^T is the gradient. computed_by: the methods that compute them. whole: the module as one map of its one
    argument to its output, for the explicit solver; by default its only map. Raises ProblemError for what is
    no class of modules.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ProblemError(f"register: expected a class of torch modules, found {kind!r}")
    _ENTRIES[kind] = Entry(maps, tuple(computed_by), kind.__module__.startswith("torch."), whole)


def whole_map(module: nn.Module) -> AffineMap | None:
    """A module as one affine map of its argument: base + W x + b with all its parameters in W and b; None for
    one that is not known to be.

    Hooks, parameters besides W and b, or W computed from others: then it is none.
    """
    entry = entry_of(module)
    if entry is None or not is_certain(module) or any(vars(module)[name] for name in _HOOKS):
        return None
    own = {name for name, value in module._parameters.items() if value is not None}
    found = [entry.whole(module)] if entry.whole is not None and own else list(entry.maps(module))
    one = found[0] if len(found) == 1 else None
    if not isinstance(one, AffineMap) or one.outputs is None or list(module.children()):
        return None
    return one if own == {one.weight} | ({one.bias} if one.bias else set()) else None


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's own parameters, not its children's; of a scripted one too."""
    return dict(module.named_parameters(recurse=False, remove_duplicate=False))


def is_certain(module: nn.Module) -> bool:
    """Whether a module runs the forward of a registered class, as it is."""
    kind = _kind_of(module)
    if kind is None:
        return False
    for name in _ENTRIES[kind].computed_by:
        if name in vars(module) or getattr(type(module), name, None) is not getattr(kind, name):
            return False
    return True


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def entry_of(module: nn.Module) -> Entry | None:
    """Of the nearest registered class that a module derives from."""
    kind = _kind_of(module)
    return None if kind is None else _ENTRIES[kind]


def _kind_of(module: nn.Module) -> type[nn.Module] | None:
    for kind in type(module).__mro__:
        if kind in _ENTRIES:
            return kind
    return None
