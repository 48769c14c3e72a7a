"""Figure 3 turned round: the seconds that each method needs to a loss and to an accuracy."""

from pathlib import Path
from typing import Any

from pontryagin.run.figures.method_style import in_order
from pontryagin.run.files import write_text
from pontryagin.run.reports.page import pictures
from pontryagin.run.reports.text import NONE, label, number, table
from pontryagin.run.tables import Drawing

LOSSES = (0.2, 0.1, 0.05)
ACCURACIES = (0.97, 0.98, 0.985, 0.99)

_WORDS = """<p>Seconds of training (evaluation and writing left out), in brackets the iteration, until an
evaluation first gave a train loss that low or a test accuracy that high; median over the seeds. Below them:
how many times as long Adam took. The methods take turns, an iteration each, on the same machine; “—”: not
reached in the run.</p>"""


def clock_section(directory: Path, summary: dict[str, Any]) -> str:
    """HTML with the table, which is also written as wall-clock.csv, and the figure,
    figures/wall-clock.png."""
    methods = next(iter(summary["results"].values()))
    goals = goals_of(methods)
    write_text(directory / "wall-clock.csv", "".join(",".join(row) + "\n" for row in csv_rows(goals)))
    head = ["method", "seconds per iteration", *(f"loss {loss:g}" for loss in LOSSES),
            *(f"{100 * share:g} %" for share in ACCURACIES)]
    rows = [[label(method), number(methods[method]["seconds_per_iteration"]),
             *(_cell(found, goals.get("adam", {}).get(goal)) for goal, found in goals[method].items())]
            for method in in_order(list(goals))]
    return "<h2>Seconds to a goal</h2>" + _WORDS + table(head, rows) + pictures(lambda: _draw(directory))


Goals = dict[str, dict[tuple[str, float], tuple[float, float] | None]]
"""By method and (loss or accuracy, value): median iteration and seconds."""


def goals_of(methods: dict[str, Any]) -> Goals:
    """From the results of a summary."""
    found: Goals = {}
    for method, result in methods.items():
        found[method] = {("loss", loss): _pair(result["iterations_to"].get(f"{loss:g}", {}).get("median"),
                                               result["seconds_to"].get(f"{loss:g}", {}).get("median"))
                         for loss in LOSSES}
        for share in ACCURACIES:
            reached = result.get("accuracy_to", {}).get(f"{share:g}", {})
            found[method]["accuracy", share] = _pair(reached.get("iterations"), reached.get("seconds"))
    return found


def csv_rows(goals: Goals) -> list[list[str]]:
    """Columns method, goal, value, iteration, seconds; empty where not reached."""
    rows = [["method", "goal", "value", "iteration", "seconds"]]
    for method, own in goals.items():
        for (goal, value), reached in own.items():
            cells = ["", ""] if reached is None else [repr(float(reached[0])), repr(float(reached[1]))]
            rows.append([method, goal, repr(value), *cells])
    return rows


def _pair(iteration: float | None, seconds: float | None) -> tuple[float, float] | None:
    return None if iteration is None or seconds is None else (iteration, seconds)


def _cell(found: tuple[float, float] | None, adam: tuple[float, float] | None) -> str:
    if found is None:
        return NONE
    ratio = "" if adam is None or not found[1] else f"<br><small>{adam[1] / found[1]:.2f}</small>"
    return f"<b>{number(found[1])} s</b> ({number(found[0])}){ratio}"


def _draw(directory: Path) -> list[Drawing]:
    from pontryagin.papers.images.wall_clock_curves import draw_clock

    return [draw_clock(directory, LOSSES, ACCURACIES)]
