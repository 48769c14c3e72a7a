"""The result of a benchmark as a table, a picture and a page."""

import json
from collections.abc import Collection, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from pontryagin.bench.benchmark import COLUMNS
from pontryagin.run.figures.method_style import in_order, style_of
from pontryagin.run.reports.page import Banner, Block, Cells, pictures, write_page
from pontryagin.run.reports.words import NONE, best, label, lines, stacked, tuned
from pontryagin.run.tables import Sketch, read_table

_WAYS = (("The same race on a network and data of yours:",
          "pontryagin compare --model my.module:Net --data my.module:load --methods emsa,adam --tune 100"),
         ("On networks of many kinds, a first look in twenty minutes:",
          "pontryagin bench panel --subset --seconds 2 --tuning rate --seeds 1"))
_WORDS = (
    "Cost: seconds of an iteration relative to tuned Adam. Memory: growth of the resident set relative to "
    "Adam. A target's column holds iterations, seconds, and in brackets tuned Adam's seconds divided by them "
    "(median over seeds, range): above 1 is sooner than Adam. A dash: not reached by most seeds; targets "
    "that no method reached are left out. Marked: the best of a column, of a target by seconds. "
    "Train loss is that of the current controls on a thousand fixed "
    "training samples, measured every five iterations outside the timed region, like the score that of the "
    "averages where a method keeps averages (EMSA, averaged Adam, schedule-free AdamW); {}. Rates: {}.")


def write_report(folder: Path) -> str:
    """report.html with the table, the curves and the settings; returns the table as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows, task = table(summary), summary["settings"]["task"]
    last = len(rows[0]) - 2
    blocks: list[Block] = [_part(summary, rows, [2, 3, last, last + 1], [0, 1, 2, 3, last, last + 1]),
                           _part(summary, rows, range(4, last), [0, *range(4, last)]),
                           _WORDS.format(summary["schedule"], summary["tuning_rule"]),
                           *pictures(folder, {"train-loss": lambda: _curves(folder, str(summary["score"]))}),
                           *tuned({task: summary["tuning"]}, {task: summary["results"]})]
    write_page(folder, f"Optimizers on the clock: {task}", summary, blocks,
               Banner("Interrupted.", "Only what had been measured is shown."), _headline(summary), _WAYS)
    return lines(rows)


def _headline(summary: dict[str, Any]) -> str:
    """End losses, the least first."""
    ends = {name: result["train_loss"]["median"] for name, result in summary["results"].items()
            if result["train_loss"]["median"] is not None}
    return "End loss: " + ", ".join(f"{style_of(name).label} {ends[name]:.3g}"
                                    for name in sorted(ends, key=ends.__getitem__)) + "." if ends else ""


def _part(summary: dict[str, Any], rows: Sequence[Sequence[str]], judged: Collection[int],
          columns: Sequence[int]) -> Cells:
    """These columns, for all in one table would be wider than a page; of the judged ones the best is marked,
    of targets by seconds."""
    head, *body = [[row[number] for number in columns] for row in rows]
    values = {columns.index(number): [_value(summary, result, rows[0][number])
                                      for result in summary["results"].values()] for number in judged}
    most = [place for place, name in enumerate(head) if name == "end accuracy"]
    return Cells(head, [[label(method), *map(stacked, rest)] for method, *rest in body],
                 best=best(values, most))


def _value(summary: dict[str, Any], result: dict[str, Any], column: str) -> float | None:
    """What a column of the table judges a method by."""
    kind, _, target = column.rpartition(" ")
    if column in ("cost", "end loss", f"end {summary['score']}"):
        key = {"cost": "cost", "end loss": "train_loss"}.get(column, "score")
        return result[key]["median"]
    if column == "memory":
        return result["memory"]
    return result["to_loss" if kind == "loss" else "to_score"][target]["seconds"]["median"]


def table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """A header, then a row a method."""
    results = summary["results"]
    losses, scores = (_reached(results, goal) for goal in ("to_loss", "to_score"))
    rows = [("method", "rate", "cost", "memory", *(f"loss {t}" for t in losses),
             *(f"{summary['score']} {t}" for t in scores),
             "end loss", f"end {summary['score']}")]
    for name, result in results.items():
        rows.append((name, f"{result['learning_rate']:g}", _range(result["cost"], ".2f"),
                     NONE if result["memory"] is None else f"{result['memory']:.2f}",
                     *(_target(result["to_loss"][t]) for t in losses),
                     *(_target(result["to_score"][t]) for t in scores), _range(result["train_loss"], ".3g"),
                     _range(result["score"], ".4g")))
    return rows


def _reached(results: dict[str, Any], goal: str) -> list[str]:
    """The targets that the median seed of some method has reached, in their order."""
    targets = [target for result in results.values() for target in result[goal]]
    return [target for target in dict.fromkeys(targets)
            if any(result[goal][target]["iterations"]["median"] is not None for result in results.values())]


def _range(spread: dict[str, Any], form: str) -> str:
    if spread["median"] is None:
        return NONE
    middle, low, high = (f"{spread[name]:{form}}" for name in ("median", "min", "max"))
    return middle if low == high else f"{middle} [{low}, {high}]"


def _target(found: dict[str, Any]) -> str:
    iterations, ratio = found["iterations"]["median"], found["adam_over_this"]
    if iterations is None:
        return NONE
    sooner = "" if ratio["median"] is None else f" ({_range(ratio, '.2f')})"
    return f"{iterations:.0f} it, {found['seconds']['median']:.1f} s{sooner}"


def _curves(folder: Path, score: str) -> Sketch:
    """Train loss and score against iterations and seconds: the median over seeds."""
    from pontryagin.run.figures.canvas import legend_below, log_y, new_figure

    metrics = read_table(folder / "metrics.csv", COLUMNS[:1], COLUMNS[2:])
    methods, shown = in_order(metrics.values("method")), []
    sheet = new_figure(7.0)
    panels = sheet.subplots(2, 2, sharey="row", sharex="col")
    for row, column in zip(panels, ("train_loss", "score"), strict=True):
        for method in methods:
            own = metrics.where(method=method)
            own = own.take(np.isfinite(own[column]))
            each = [np.unique(own["iteration"][own["seed"] == seed]) for seed in np.unique(own["seed"])]
            at = reduce(np.intersect1d, each) if each else np.empty(0)  # as far as all seeds were run
            value, seconds = (np.array([np.median(own[name][own["iteration"] == k]) for k in at])
                              for name in (column, "seconds"))
            shown += [value] if column == "train_loss" else []
            for axes, effort in zip(row, (at, seconds), strict=True):
                axes.plot(effort, value, label=style_of(method).label, **style_of(method).look)
    log_y(panels[0, 0], shown)
    panels[0, 0].set_ylabel("train loss")
    panels[1, 0].set(xlabel="iteration", ylabel=score)
    panels[1, 1].set_xlabel("seconds")
    legend_below(sheet, methods)
    return Sketch("Train loss and score",
                  f"Medians over seeds. Above: train loss; below: {score} on held-out data. Seconds are of "
                  "training alone.", sheet)
