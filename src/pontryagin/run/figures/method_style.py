"""One name, color and line for a method, the same in every figure and table."""

from pontryagin.run.methods import BENCH_ONLY, MethodStyle
from pontryagin.run.methods import METHODS as TRAINED

_SOLVERS = {
    "emsa-secant": MethodStyle("E-MSA with secants", "#009E73", "-", 1.9),
    "msa": MethodStyle("basic MSA", "#7F7F7F", (0, (1, 1.2)), 1.7),
    "lbfgs": MethodStyle("L-BFGS", "#000000", (0, (4, 1.5)), 1.3),
    "lm": MethodStyle("Levenberg–Marquardt", "#000000", (0, (1, 1)), 1.3),
}
"""Methods of the experiments on control problems."""
_FIRST = ("emsa", "emsa-secant", "emsa-paper", "msa", "li-hao", "bop", "binaryconnect", "adam", "adam-averaged",
          "adam-default", "adagrad")
"""Legends and tables begin with control methods, and Adam before other optimizers; the classical ones end them."""

_STYLES = {name: method.style for name, method in (TRAINED | BENCH_ONLY).items()} | _SOLVERS
METHODS = {name: _STYLES[name] for name in (*_FIRST, *_STYLES)}
"""In the order of legends and tables."""

FIGURES = {"a": "Figure 1(a), good initialization", "b": "Figure 1(b), poor initialization"}


def style_of(method: str) -> MethodStyle:
    """A method without a style of its own is thin and grey, under its own name."""
    return METHODS.get(method, MethodStyle(method, "#444444", "-", 0.9))


def in_order(methods: list[str]) -> list[str]:
    """Methods in the order of METHODS, unknown ones last."""
    known = list(METHODS)
    return sorted(methods, key=lambda method: known.index(method) if method in known else len(known))


def figure_title(figure: str) -> str:
    """The paper's figure by its letter."""
    return FIGURES.get(figure, f"Figure 1({figure})")
