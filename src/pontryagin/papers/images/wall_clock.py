"""Figure 3 turned round: the seconds that each method needs to a loss and to an accuracy."""

from pathlib import Path
from typing import Any

import numpy as np

from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.files import write_text
from pontryagin.run.history import COLUMNS
from pontryagin.run.reports.page import Block, Cells, Heading, pictures
from pontryagin.run.reports.words import NONE, best, count, label, number, stack
from pontryagin.run.tables import Sketch, read_table

LOSSES = (0.2, 0.1, 0.05)
ACCURACIES = (0.97, 0.98, 0.985, 0.99)

_WORDS = ("Seconds of training (evaluation and writing left out), in brackets the iteration, until an "
          "evaluation first gave a train loss that low or a test accuracy that high; median over the seeds. "
          "Below them: how many times as long Adam took. The methods take turns, an iteration each, on the "
          "same machine; “—”: not reached in the run.")


def clock_section(directory: Path, methods: dict[str, Any]) -> list[Block]:
    """The table, which is also written as wall-clock.csv, and the figure, figures/wall-clock.png."""
    goals = goals_of(methods)
    write_text(directory / "wall-clock.csv", "".join(",".join(row) + "\n" for row in csv_rows(goals)))
    head = ["method", "seconds per iteration", *(f"loss {loss:g}" for loss in LOSSES),
            *(f"{100 * share:g} %" for share in ACCURACIES)]
    rows = [[label(method), number(methods[method]["seconds_per_iteration"]),
             *(_cell(found, goals.get("adam", {}).get(goal)) for goal, found in goals[method].items())]
            for method in in_order(goals)]
    seconds = {column: [(goals[method][goal] or (None, None))[1] for method in in_order(goals)]
               for column, goal in enumerate(next(iter(goals.values()), {}), start=2)}
    return [Heading("Seconds to a goal"), _WORDS, Cells(head, rows, best=best(seconds)),
            *pictures(directory, {"wall-clock": lambda: clock_figure(directory)})]


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
    ratio = [] if adam is None or not found[1] else [f"{adam[1] / found[1]:.2f}"]
    return stack(f"{number(found[1])} s ({count(found[0])})", *ratio)


def clock_figure(directory: Path) -> Sketch:
    """Train loss and test accuracy over seconds; what every method ends at is inside."""
    from pontryagin.run.figures.canvas import legend_below, log_ticks, log_y, new_figure

    metrics = read_table(directory / "metrics.csv", COLUMNS[:2], COLUMNS[2:])
    methods, shown, ends = in_order(metrics.values("method")), [], []
    sheet = new_figure(4.6)
    left, right = sheet.subplots(1, 2)
    for method in methods:
        for own in metrics.where(method=method).seeds():
            own = own.take(np.isfinite(own["train_loss"]) & (own["seconds"] > 0))
            for axes, value in ((left, own["train_loss"]), (right, 100 * own["test_accuracy"])):
                axes.plot(own["seconds"], value, label=style_of(method).label, **style_of(method).look)
            shown.append(own["train_loss"])
            ends += [100 * float(value) for value in own["test_accuracy"][-1:]]
    log_y(left, [values for values in shown if len(values)])
    least = min([90, *ends])
    left.set(xscale="log", xlabel="seconds of training", title="Train loss")
    right.set(xscale="log", xlabel="seconds of training", title="Test accuracy, %",
              ylim=(least - 0.1 * (100 - least), 100))
    for axes in (left, right):
        log_ticks(axes.xaxis)
    for axes, goals in ((left, LOSSES), (right, [100 * share for share in ACCURACIES])):
        for goal in goals:
            axes.axhline(goal, color="#cccccc", linewidth=0.8, zorder=0)
    legend_below(sheet, methods)
    return Sketch("Seconds to a goal",
                  "Train loss and test accuracy against seconds of training, a line a seed; grey: "
                  "the goals of the table.", sheet)
