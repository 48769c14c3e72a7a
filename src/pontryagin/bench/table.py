"""The result of a benchmark as a table, a picture and a page."""

import json
from html import escape
from pathlib import Path
from typing import Any

from pontryagin.run.files import write_text
from pontryagin.run.reports.page import details, frame, pictures
from pontryagin.run.reports.text import lines, stacked, tuning_table
from pontryagin.run.reports.text import table as html_table
from pontryagin.run.tables import Drawing

_WORDS = """<p>Cost: seconds of an iteration relative to tuned Adam. Memory: growth of the resident set
relative to Adam. A target's column holds iterations, seconds, and in brackets tuned Adam's seconds divided by
them (median over seeds, range): above 1 is sooner than Adam. A dash: not reached by most seeds; targets that
no method reached are left out. Train loss is that of the current controls on a thousand fixed training
samples, measured every five iterations outside the timed region, like the score that of the averages where a
method keeps averages (EMSA, averaged Adam, schedule-free AdamW); {}. Rates: {}.</p>"""


def write_page(folder: Path) -> str:
    """report.html with the table, the curves and the settings; returns the table as text."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows = table(summary)
    title = f"Optimizers on the clock: {summary['settings']['task']}"
    body = [f"<h1>{escape(title)}</h1>"]
    if summary["interrupted"]:
        body.append('<p class="banner" role="status"><b>Interrupted.</b> Only what had been measured is '
                    'shown.</p>')
    body += [f"<pre><code>{escape(summary['command'])}</code></pre>",
             _part(rows, [0, 1, 2, 3, -2, -1]), _part(rows, [0, *range(4, len(rows[0]) - 2)]),
             _WORDS.format(escape(summary["schedule"]), escape(summary["tuning_rule"])),
             pictures(lambda: _draw(folder, summary))]
    if any(summary["tuning"].values()):
        task = summary["settings"]["task"]
        body += ["<h2>Learning rates tried</h2><p>The score of every rate, lower is better. Bold: the rate "
                 "that was used.</p>",
                 tuning_table({task: summary["tuning"]}, {task: summary["results"]})]
    write_text(folder / "report.html", frame(title, "\n".join([*body, details({"diverged": {}, **summary})])))
    return lines(rows)


def _part(rows: list[tuple[str, ...]], columns: list[int]) -> str:
    """These columns, as HTML: all in one table would be wider than a page."""
    head, *body = [[row[number] for number in columns] for row in rows]
    return html_table([escape(cell) for cell in head], [[stacked(cell) for cell in row] for row in body])


def table(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """A header, then a row a method."""
    results = summary["results"]
    losses, scores = (_reached(results, goal) for goal in ("to_loss", "to_score"))
    rows = [("method", "rate", "cost", "memory", *(f"loss {t}" for t in losses),
             *(f"{summary['score']} {t}" for t in scores),
             "end loss", f"end {summary['score']}")]
    for name, result in results.items():
        rows.append((name, f"{result['learning_rate']:g}", _range(result["cost"], ".2f"),
                     "-" if result["memory"] is None else f"{result['memory']:.2f}",
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
        return "-"
    middle, low, high = (f"{spread[name]:{form}}" for name in ("median", "min", "max"))
    return middle if low == high else f"{middle} [{low}, {high}]"


def _target(found: dict[str, Any]) -> str:
    if found["iterations"]["median"] is None:
        return "-"
    ratio = "" if found["adam_over_this"]["median"] is None else f" ({_range(found['adam_over_this'], '.2f')})"
    return f"{found['iterations']['median']:.0f} it, {found['seconds']['median']:.1f} s{ratio}"


def _draw(folder: Path, summary: dict[str, Any]) -> list[Drawing]:
    from pontryagin.bench.curves import draw_curves

    return [draw_curves(folder, summary)]
