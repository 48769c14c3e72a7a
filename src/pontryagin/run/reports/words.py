"""Numbers in words and cells, and the tables that several reports have. Markup is not escaped again."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf, isfinite
from typing import Any

from markupsafe import Markup

from pontryagin.run.figures.method_style import METHODS, in_order, style_of
from pontryagin.run.reports.page import Block, Cells, Heading

NONE = "—"


def number(value: object) -> str:
    """What was measured, to three digits, so that a column has equal ones; a whole number in full. What is
    not a number is a dash, what is not finite says so."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return NONE
    if not isfinite(value):
        return "not finite"
    rounded = float(f"{value:.2e}")
    if isinstance(value, int) or value == 0 or 1000 <= abs(rounded) < 1e9:
        return f"{value:,.0f}"
    if 1e-2 <= abs(rounded) < 1000:
        return f"{rounded:#.3g}".rstrip(".")
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def count(value: object) -> str:
    """How many, or a median of such numbers; a dash for none."""
    return f"{value:,.10g}" if isinstance(value, (int, float)) else NONE


def given(value: object) -> str:
    """What was chosen, as it was written: a learning rate, a target; a dash for none."""
    if not isinstance(value, (int, float)):
        return NONE
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:g}"


def best(columns: Mapping[int, Sequence[object]], most: Collection[int] = ()) -> frozenset[tuple[int, int]]:
    """The cells (row, column) to be marked: the least of each column, the greatest of those in `most`.

    columns: by place, a value a row; what is no finite number is passed over, and a column of fewer than two
    values, or of equal ones, has no best.
    """
    found = set()
    for place, values in columns.items():
        known = {row: value for row, value in enumerate(values)
                 if isinstance(value, (int, float)) and isfinite(value)}
        if len({*known.values()}) > 1:
            goal = (max if place in most else min)(known.values())
            found |= {(row, place) for row, value in known.items() if value == goal}
    return frozenset(found)


def loss_of(value: object) -> str:
    """A loss; JSON has null for one that is not finite."""
    return "not finite" if value is None else number(value)


bold, small = Markup("<b>{}</b>").format, Markup("<small>{}</small>").format
unbroken = Markup('<span class="nowrap">{}</span>').format
"""What a reader looks for first, what explains, what stays on one line."""


def stack(first: str, *below: str) -> Markup:
    """A cell with small lines below its first; a space before each break, for phones, which break nothing."""
    return Markup(" <br>").join([first, *map(small, below)])


def stacked(cell: str) -> Markup:
    """A cell of text: what follows a comma, and what stands in brackets, on small lines of their own."""
    return stack(*re.split(r", (?![^\[(]*[\])])| (?=[\[(])", cell, maxsplit=2))


def spread(values: Mapping[str, Any], form: Callable[[Any], str] = loss_of) -> Markup:
    """Median and range over seeds; the median alone where they are the same."""
    middle, least, most = (form(values[key]) for key in ("median", "min", "max"))
    return stack(middle, *([] if values["min"] == values["max"] else [f"[{least}, {most}]"]))


def label(method: str) -> Markup:
    """A cell: the method for people, with the name that options and files use."""
    return stack(style_of(method).label, *([method] if method in METHODS else []))


def named(method: str) -> Markup:
    """The method for people, within a sentence."""
    return unbroken(style_of(method).label)


def join(words: Sequence[str]) -> Markup:
    """a, b and c."""
    return Markup(" and ").join([part for part in (Markup(", ").join(words[:-1]), *words[-1:]) if part])


def targets(methods: Mapping[str, Any]) -> list[str]:
    """The losses that were asked for, largest first."""
    found = {target for result in methods.values() for target in result["iterations_to"]}
    return sorted(found, key=float, reverse=True)


def tuned(tuning: Mapping[str, Any], results: Mapping[str, Any], rule: str = "") -> list[Block]:
    """The score of every learning rate that was tried; bold: the one that was used. Nothing where none was.
    Figures are named where there are several.

    tuning: scores by figure, method and rate; results: by figure and method; rule: what the score is.
    """
    rates = sorted({rate for methods in tuning.values() for scores in methods.values() for rate in scores},
                   key=_as_number)
    if not rates:
        return []
    rows, several = [], len(tuning) > 1
    for figure, methods in tuning.items():
        for method in in_order(methods):
            used = results.get(figure, {}).get(method, {}).get("learning_rate")
            cells = [number(methods[method].get(rate)) for rate in rates]
            rows.append([*([f"({figure})"] if several else []), label(method),
                         *(bold(cell) if _as_number(rate) == used else cell
                           for rate, cell in zip(rates, cells, strict=True))])
    return [Heading("Learning rates tried"),
            f"The score of every rate, lower is better{rule and ': '}{rule}. Bold: the rate that was used; "
            f"{NONE} where a score is not finite or a rate was not tried.",
            Cells([*(["figure"] if several else []), "method", *rates], rows, names=1 + several)]


def lines(rows: Sequence[Sequence[str]]) -> str:
    """A table as text, its columns aligned."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)


def _as_number(rate: str) -> float:
    try:
        return float(rate)
    except ValueError:
        return inf
