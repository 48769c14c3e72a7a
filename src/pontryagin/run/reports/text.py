"""Numbers in words and cells: the lead of the report and its tables. Everything is computed from
summary.json."""

import re
from collections.abc import Sequence
from html import escape
from math import isfinite, isnan
from typing import Any

from pontryagin.run.figures.method_style import METHODS, figure_title, in_order, style_of

Result = dict[str, Any]
NONE = "—"
_SINE = ("A residual network is trained to compute sin x, as in Figure 1 of Li, Chen, Tai and E, "
         "<cite>Maximum Principle Based Algorithms for Deep Learning</cite> (JMLR 18, 2018); the loss is the "
         "mean squared error. Trained")


def label(method: str) -> str:
    """The method for people, with the name that options and files use; escaped."""
    shown = escape(style_of(method).label)
    return f'{shown}<br><small>{escape(method)}</small>' if method in METHODS else shown


def number(value: object) -> str:
    """Three digits at most; what is not a number is a dash, what is not finite says so."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return NONE
    if not isfinite(value):
        return "not finite"
    if value == 0 or 1e-2 <= abs(value) < 1000:
        return f"{value:.3g}"
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def loss_of(value: object) -> str:
    """A loss; JSON has null for one that is not finite."""
    return "not finite" if value is None else number(value)


def spread(loss: Result) -> str:
    """Median [min, max]; the median alone where they are the same."""
    if loss["min"] == loss["max"]:
        return f"<b>{loss_of(loss['median'])}</b>"
    return f"<b>{loss_of(loss['median'])}</b><br><small>[{loss_of(loss['min'])}, {loss_of(loss['max'])}]</small>"


def stacked(cell: str) -> str:
    """A cell of text as HTML: what follows a comma, and what stands in brackets, on lines of their own."""
    first, *rest = re.split(r", (?![^\[(]*[\])])| (?=[\[(])", cell, maxsplit=2)
    return f"{escape(first)}" + "".join(f"<br><small>{escape(part)}</small>" for part in rest)


def targets(methods: dict[str, Result]) -> list[str]:
    """The losses that were asked for, largest first."""
    found = {target for result in methods.values() for target in result["iterations_to"]}
    return sorted(found, key=float, reverse=True)


def reach(result: Result, target: str) -> str:
    """Cell: iterations, evaluations and seconds to a loss, and the seeds if not all reached it."""
    entry = result["iterations_to"].get(target)
    if entry is None or not entry["reached"]:
        return NONE
    seeds = "" if entry["reached"] == entry["seeds"] else f"<br><small>{entry['reached']}/{entry['seeds']} seeds</small>"
    if entry["median"] is None:
        return NONE + seeds
    evaluations = result["evaluations_to"].get(target, {}).get("median")
    seconds = result["seconds_to"].get(target, {}).get("median")
    return f"<b>{number(entry['median'])}</b> it<br>{number(evaluations)} ev<br>{number(seconds)} s{seeds}"


def results_table(methods: dict[str, Result]) -> str:
    """A row a method."""
    losses = targets(methods)
    head = ["method", "learning rate", "iterations run", "ms per iteration", "final train loss",
            "final test loss",
            *(f'<span class="nowrap">to {number(float(target))}</span>' for target in losses)]
    rows = []
    for method in in_order(list(methods)):
        result = methods[method]
        seconds = result["seconds_per_iteration"]
        milliseconds = number(1000 * seconds) if isinstance(seconds, (int, float)) else NONE
        reached = [reach(result, target) for target in losses]
        rows.append([label(method), number(result["learning_rate"]), number(result["iterations"]),
                     milliseconds, spread(result["train_loss"]), spread(result["test_loss"]), *reached])
    return table(head, rows)


def paper_table(paper: dict[str, dict[str, Result]], results: dict[str, dict[str, Result]]) -> str:
    """The paper's end values beside ours."""
    rows = []
    for figure, values in paper.items():
        for method in in_order(list(values)):
            ours = results.get(figure, {}).get(method)
            here = [NONE, NONE] if ours is None else [spread(ours["train_loss"]), number(ours["iterations"])]
            theirs = [number(values[method][key]) for key in ("loss", "iteration")]
            rows.append([escape(f"({figure})"), label(method), *theirs, *here])
    head = ["figure", "method", "paper: loss", "at iteration", "here: final train loss", "at iteration"]
    return table(head, rows, names=2)


def tuning_table(tuning: dict[str, dict[str, Any]], results: dict[str, dict[str, Result]]) -> str:
    """The score of every learning rate that was tried; bold: the one that was used."""
    rates = sorted({rate for methods in tuning.values() for losses in methods.values() for rate in losses},
                   key=_as_number)
    rows = []
    for figure, methods in tuning.items():
        for method in in_order(list(methods)):
            chosen = results.get(figure, {}).get(method, {}).get("learning_rate")
            cells = []
            for rate in rates:
                cell = number(methods[method][rate]) if rate in methods[method] else NONE
                cells.append(f"<b>{cell}</b>" if chosen is not None and _as_number(rate) == chosen else cell)
            rows.append([escape(f"({figure})"), label(method), *cells])
    return table(["figure", "method", *(escape(str(rate)) for rate in rates)], rows, names=2)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table that scrolls sideways by itself; cells are HTML already, the first `names` of a row are
    words."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (f'<div class="wide"><table class="names{names}">\n<thead><tr>{top}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody></table></div>")


def lines(rows: Sequence[Sequence[str]]) -> str:
    """A table as text, its columns aligned."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)


def lead(summary: Result) -> str:
    """What was computed, and which method reached what, as paragraphs and a list."""
    results = summary["results"]
    methods = in_order(list({method: None for figure in results.values() for method in figure}))
    seeds = sorted({entry["seeds"] for figure in results.values() for result in figure.values()
                    for entry in result["iterations_to"].values()})
    if not methods:
        return "<p>No method had been run.</p>"
    problem = (_SINE if summary["experiment"] == "sine"
               else f"The experiment {escape(str(summary['experiment']))}, run")
    runs = f", with {' or '.join(str(count) for count in seeds)} {'seed' if seeds == [1] else 'seeds'} each" if seeds else ""
    names = join([_name(method) for method in methods])
    count = f"{len(methods)} {'method' if len(methods) == 1 else 'methods'}"
    parts = [f"<p>{problem} by {count}{runs}: {names}. Where several seeds ran, numbers are medians over "
             "them.</p>"]
    for figure, found in results.items():
        told = sentences(found, summary["diverged"].get(figure, {}))
        items = "\n".join(f"<li>{sentence}</li>" for sentence in told)
        parts += [f"<p><b>{escape(figure_title(figure))}</b></p>\n<ul>\n{items}\n</ul>"] if items else []
    return "\n".join(parts)


def sentences(methods: dict[str, Result], diverged: dict[str, Sequence[str]]) -> list[str]:
    """One figure: the lowest loss, who reached the strictest loss first, who did not, who diverged. Escaped.

    diverged: why seeds of a method were stopped, a message a seed.
    """
    final = {method: methods[method]["train_loss"]["median"] for method in in_order(list(methods))}
    ended = {method: loss for method, loss in final.items() if _is_finite(loss)}
    found = []
    if ended:
        best = min(ended, key=lambda method: ended[method])
        found.append(f"Lowest final train loss: {_name(best)}, {number(ended[best])} after "
                     f"{number(methods[best]['iterations'])} iterations.")
    if "emsa" in ended and best != "emsa":
        found.append(f"{_name('emsa')}: {number(ended['emsa'])} after "
                     f"{number(methods['emsa']['iterations'])} iterations.")
    reached = [target for target in targets(methods)
               if any(_median(result, "iterations_to", target) is not None
                                                            for result in methods.values())]
    if reached:
        found += _reached(methods, reached[-1])
    elif targets(methods):
        found.append(f"No method's median seed reached {number(float(targets(methods)[0]))}.")
    broken = [_name(method) for method, loss in final.items() if loss is None or not isfinite(loss)]
    if broken:
        found.append(f"Final train loss not finite: {join(broken)}.")
    stopped = [f"{_name(method)} ({len(diverged[method])} "
               f"{'seed' if len(diverged[method]) == 1 else 'seeds'})"
               for method in in_order(list(diverged)) if diverged[method]]
    if stopped:
        found.append(f"Stopped early because something was no longer finite: {join(stopped)}.")
    return found


def join(words: Sequence[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def _reached(methods: dict[str, Result], target: str) -> list[str]:
    loss = number(float(target))
    done = [method for method in in_order(list(methods))
            if _median(methods[method], "iterations_to", target) is not None]
    found = [f"A train loss of {loss}, the lowest of those asked for that the median seed of a method "
             "reached, took "
             + join([f"{_name(method)} {number(_median(methods[method], 'iterations_to', target))} iterations"
                     + (f" ({number(_median(methods[method], 'seconds_to', target))} s)"
                        if _median(methods[method], "seconds_to", target) is not None else "")
                     for method in done]) + "."]
    timed = [method for method in done if _median(methods[method], "seconds_to", target) is not None]
    if len(done) > 1:
        fewest = min(done, key=lambda method: _median(methods[method], "iterations_to", target) or 0)
        found.append(f"Fewest iterations: {_name(fewest)}"
                     + ("; least time: "
                        f"{_name(min(timed, key=lambda m: _median(methods[m], 'seconds_to', target) or 0))}."
                        if timed else "."))
    others = [_name(method) for method in in_order(list(methods)) if method not in done]
    if others:
        found.append(f"Median seed not there: {join(others)}.")
    return found


def _median(result: Result, cost: str, target: str) -> float | None:
    value = result[cost].get(target, {}).get("median")
    return float(value) if _is_finite(value) else None


def _name(method: str) -> str:
    return f'<span class="nowrap">{escape(style_of(method).label)}</span>'


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isnan(value) and isfinite(value)


def _as_number(rate: str) -> float:
    try:
        return float(rate)
    except ValueError:
        return float("inf")
