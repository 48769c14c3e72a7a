"""One name, color and line for a method, the same in every figure and table."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MethodStyle:
    """label: for people; color: of Okabe and Ito's color-blind safe set; line: matplotlib's style; width in
    points."""

    label: str
    color: str
    line: Any = "-"
    width: float = 1.5


METHODS = {
    "emsa": MethodStyle("E-MSA", "#0072B2", "-", 2.2),
    "emsa-secant": MethodStyle("E-MSA with secants", "#009E73", "-", 1.9),
    "emsa-paper": MethodStyle("paper's E-MSA", "#56B4E9", (0, (5, 1.5)), 1.9),
    "msa": MethodStyle("basic MSA", "#7F7F7F", (0, (1, 1.2)), 1.7),
    "li-hao": MethodStyle("Li and Hao", "#009E73", (0, (6, 1.5, 1.5, 1.5)), 1.9),
    "bop": MethodStyle("Bop", "#CC79A7", (0, (3, 1.2))),
    "binaryconnect": MethodStyle("BinaryConnect", "#E69F00", (0, (5, 1.5))),
    "adam": MethodStyle("Adam", "#D55E00"),
    "adam-averaged": MethodStyle("Adam, averaged", "#D55E00", (0, (1, 1.2))),
    "adam-default": MethodStyle("Adam at its default", "#D55E00", (0, (6, 1.5, 1.5, 1.5))),
    "adagrad": MethodStyle("Adagrad", "#E69F00", (0, (5, 1.5))),
    "sgd": MethodStyle("SGD", "#CC79A7", (0, (6, 1.5, 1.5, 1.5))),
    "sgd-momentum": MethodStyle("SGD with momentum", "#CC79A7"),
    "adamw": MethodStyle("AdamW", "#D55E00", (0, (5, 1.5))),
    "schedule-free": MethodStyle("schedule-free AdamW", "#E69F00", (0, (1, 1.2))),
    "muon": MethodStyle("Muon", "#009E73", (0, (3, 1.2))),
    "soap": MethodStyle("SOAP", "#7F7F7F", (0, (5, 1.5))),
    "shampoo": MethodStyle("Shampoo", "#7F7F7F", (0, (1, 1.2))),
    "lbfgs": MethodStyle("L-BFGS", "#000000", (0, (4, 1.5)), 1.3),
    "lm": MethodStyle("Levenberg–Marquardt", "#000000", (0, (1, 1)), 1.3),
}
"""In the order of legends and tables: control methods, first-order optimizers, classical ones."""

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
