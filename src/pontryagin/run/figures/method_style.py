"""One name, color and line for a method, the same in every figure and table."""

from collections.abc import Iterable

from pontryagin.run.methods import BENCH_ONLY, MethodStyle
from pontryagin.run.methods import METHODS as TRAINED

BLUE, RED, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
"""Okabe and Ito's colors, which color-blind people tell apart."""
INDIGO, WINE, BROWN = "#332288", "#882255", "#8C510A"
"""Of Tol's and Brewer's, for pages that need more; told apart from the others by their darkness."""

_SOLVERS = {
    "emsa-secant": MethodStyle("E-MSA with secants", GREEN, "-", 1.9),
    "msa": MethodStyle("basic MSA", "#7F7F7F", (0, (1, 1.2)), 1.7),
    "lbfgs": MethodStyle("L-BFGS", BLACK, (0, (4, 1.5)), 1.3),
    "lm": MethodStyle("Levenberg–Marquardt", BROWN, (0, (1, 1)), 1.3),
}
"""Methods of the experiments on control problems."""
_FIRST = ("emsa", "emsa-multilevel", "emsa-secant", "emsa-paper", "msa", "li-hao", "bop", "binaryconnect",
          "adam", "adam-averaged", "adam-default", "adagrad")
"""Legends and tables begin with control methods, and Adam before other optimizers; the classical ones end
them."""

_STYLES = {name: method.style for name, method in (TRAINED | BENCH_ONLY).items()} | _SOLVERS
METHODS = {name: _STYLES[name] for name in (*_FIRST, *_STYLES)}
"""In the order of legends and tables."""


def style_of(method: str) -> MethodStyle:
    """A method without a style of its own is thin and grey, under its own name."""
    return METHODS.get(method, MethodStyle(method, "#444444", "-", 0.9))


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of METHODS, unknown ones last."""
    known = list(METHODS)
    return sorted(methods, key=lambda method: known.index(method) if method in known else len(known))
