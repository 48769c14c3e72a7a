"""Derivatives by forward mode, before the first of a process."""

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec

_RULES = "torch._decomp.decompositions_for_jvp"


@cache
def load_rules() -> None:
    """What torch reads at its first derivative by forward mode, `torch.func.jvp`, `jacfwd` and `hessian`.

    torch 2.14 scripts these rules and warns there that `torch.jit.script` is deprecated, which nobody here
    has called.
    """
    if find_spec(_RULES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import_module(_RULES)
